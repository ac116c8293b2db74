//! The Huffman code of HTTP/2 headers (RFC 7541, appendix B), for the characters that are found in an authority, sensible or not.
//!
//! The code is canonical: codes of one length follow each other in the order of their characters, so the characters of each length, in
//! order, are the whole table.

/// For each length in bits the characters that have it, in order. Longer codes are control characters and bytes above 126.
const CHARACTERS: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// One letter of each length between 5 and 8 bits.
const FILLERS: [(usize, u8); 4] = [(5, b'a'), (6, b'b'), (7, b'x'), (8, b'X')];

/// The text, and how many bits it took without the padding. `None` for characters with longer codes and for what is no code.
pub(super) fn decode(coded: &[u8]) -> Option<(Vec<u8>, usize)> {
    let bit_count = coded.len() * 8;
    let bit = |n: usize| u32::from(coded[n / 8] >> (7 - n % 8) & 1);
    let (mut text, mut position) = (Vec::new(), 0);
    'characters: while position < bit_count {
        let (mut code, mut length, mut first) = (0, 0, 0);
        for (bits, characters) in CHARACTERS {
            first <<= bits - length;
            while length < bits {
                let at = position + length as usize;
                if at >= bit_count {
                    // Padding is the beginning of the longest code: ones, less than a byte.
                    let is_padding = bit_count - position < 8 && code + 1 == 1 << length;
                    return is_padding.then_some((text, position));
                }
                code = code << 1 | bit(at);
                length += 1;
            }
            if let Some(&character) = characters.get((code - first) as usize) {
                text.push(character);
                position += bits as usize;
                continue 'characters;
            }
            first += u32::try_from(characters.len()).ok()?;
        }
        return None;
    }
    Some((text, position))
}

/// So many letters whose codes take so many bits together, coded and padded; `None` if there are none.
pub(super) fn filler(count: usize, bits: usize) -> Option<Vec<u8>> {
    if bits < 5 * count || bits > 8 * count {
        return None;
    }
    let mut text = Vec::with_capacity(count);
    let mut left = bits;
    for following in (0..count).rev() {
        // The longest letter that leaves enough for those that follow.
        let (length, letter) = FILLERS.iter().rev().find(|(length, _)| left >= length + 5 * following)?;
        text.push(*letter);
        left -= length;
    }
    Some(encode(&text))
}

/// Codes a text of the characters above; others are left out.
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut coded, mut held, mut held_bits) = (Vec::new(), 0_u64, 0);
    for character in text {
        let Some((code, bits)) = code(*character) else { continue };
        held = held << bits | u64::from(code);
        held_bits += bits;
        while held_bits >= 8 {
            held_bits -= 8;
            coded.push((held >> held_bits) as u8);
        }
    }
    if held_bits > 0 {
        coded.push((held << (8 - held_bits) | (0xff >> held_bits)) as u8);
    }
    coded
}

fn code(wanted: u8) -> Option<(u32, u32)> {
    let (mut first, mut length) = (0, 0);
    for (bits, characters) in CHARACTERS {
        first <<= bits - length;
        length = bits;
        for (code, character) in (first..).zip(characters) {
            if *character == wanted {
                return Some((code, bits));
            }
        }
        first += u32::try_from(characters.len()).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_codes_are_those_of_http2() {
        // RFC 7541, C.4.1 and C.6.1.
        let examples: [(&str, &[u8]); 3] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
            (
                "https://www.example.com",
                &[
                    0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae,
                    0x43, 0xd3,
                ],
            ),
        ];
        for (text, coded) in examples {
            assert_eq!(encode(text.as_bytes()), coded);
            assert_eq!(decode(coded).expect("a code").0, text.as_bytes());
        }
        assert_eq!(code(b'#'), Some((0xffa, 12)));
        assert_eq!(code(b']'), Some((0x1ffc, 13)));
        assert_eq!(code(b'{'), Some((0x7ffe, 15)));
    }

    proptest! {
        #[test]
        fn a_filler_is_as_long_as_what_it_replaces(text in "[ -~]{0,60}") {
            let text = text.replace('\\', "/");
            let coded = encode(text.as_bytes());
            let (decoded, bits) = decode(&coded).expect("what was coded");
            prop_assert_eq!(&decoded, text.as_bytes());
            if let Some(filler) = filler(decoded.len(), bits) {
                prop_assert_eq!(filler.len(), coded.len());
                prop_assert_eq!(decode(&filler).expect("a code").0.len(), decoded.len());
            }
        }

        #[test]
        fn anything_is_decoded_or_refused(coded in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&coded);
        }
    }
}
