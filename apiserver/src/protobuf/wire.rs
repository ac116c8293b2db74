//! The wire form of protobuf: tags, varints and lengths, read and written. Never knows what a field means.

use super::DecodeError;

/// The fields of one message, one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// What stands behind a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Payload<'a> {
    /// A number or truth value.
    Varint(u64),
    /// Text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Eight bytes: a floating-point number.
    Double(f64),
    /// Four bytes; no field of the API has them.
    Fixed,
}

impl<'a> Reader<'a> {
    /// Over a message's bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's tag and payload; `None` at the end.
    pub(super) fn next_field(&mut self) -> Result<Option<(u64, Payload<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Payload::Double(f64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Payload::Fixed)?,
            other => return Err(DecodeError::WireType(other)),
        };
        match key >> 3 {
            0 => Err(DecodeError::Tag),
            tag => Ok(Some((tag, payload))),
        }
    }

    /// The next of packed numbers; `None` at the end.
    pub(super) fn next_packed(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
            self.rest = rest;
            if shift == 63 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }
}

/// Writes a message from its end to its beginning, as the length of what stands within is known only behind it: fields come
/// with descending tags, the last item of a list first.
#[derive(Default)]
pub(super) struct Writer {
    /// The bytes so far, the last one first.
    reversed: Vec<u8>,
}

impl Writer {
    /// How many bytes have been written: where a field with a length ends.
    pub(super) fn end(&self) -> usize {
        self.reversed.len()
    }

    /// These bytes, without tag and length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// A number's field.
    pub(super) fn number(&mut self, tag: u64, value: u64) {
        self.varint(value);
        self.varint(tag << 3);
    }

    /// The field of a floating-point number.
    pub(super) fn double(&mut self, tag: u64, value: f64) {
        self.raw(&value.to_le_bytes());
        self.varint(tag << 3 | 1);
    }

    /// A field of text or bytes.
    pub(super) fn bytes(&mut self, tag: u64, bytes: &[u8]) {
        let end = self.end();
        self.raw(bytes);
        self.close(tag, end);
    }

    /// Begins the field whose contents have been written since `end`.
    pub(super) fn close(&mut self, tag: u64, end: usize) {
        self.opening(tag, self.end() - end);
    }

    /// The beginning of a field whose contents of this length are written elsewhere.
    pub(super) fn opening(&mut self, tag: u64, length: usize) {
        self.varint(length as u64);
        self.varint(tag << 3 | 2);
    }

    fn varint(&mut self, value: u64) {
        for group in (0..varint_length(value)).rev() {
            let more = if group + 1 < varint_length(value) { 0x80 } else { 0 };
            self.reversed.push((value >> (7 * group)) as u8 & 0x7f | more);
        }
    }

    /// The bytes, in order.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.reversed.reverse();
        self.reversed
    }
}

/// How many bytes a number takes.
pub(super) fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(tag in 1_u64..1 << 29, value: u64, double: f64, bytes: Vec<u8>) {
            let mut writer = Writer::default();
            writer.double(tag + 2, double);
            writer.number(tag + 1, value);
            writer.bytes(tag, &bytes);
            let written = writer.finish();
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.next_field(), Ok(Some((tag, Payload::Bytes(&bytes)))));
            prop_assert_eq!(reader.next_field(), Ok(Some((tag + 1, Payload::Varint(value)))));
            prop_assert_eq!(reader.next_field(), Ok(Some((tag + 2, Payload::Double(double)))));
            prop_assert_eq!(reader.next_field(), Ok(None));
        }
    }

    #[test]
    fn varints_hold_64_bits_and_no_more() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        assert_eq!(read(&[0xac, 0x02]), Ok(300));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(u64::MAX));
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            Err(DecodeError::Varint)
        );
        assert_eq!(read(&[0x80]), Err(DecodeError::Truncated));
    }

    #[test]
    fn lengths_beyond_the_end_groups_and_tag_zero_are_refused() {
        let read = |bytes| Reader::new(bytes).next_field();
        assert_eq!(read(&[0x0a, 0x01, b'x']), Ok(Some((1, Payload::Bytes(b"x")))));
        assert_eq!(read(&[0x0a, 0x02, b'x']), Err(DecodeError::Truncated));
        assert_eq!(read(&[0x0b]), Err(DecodeError::WireType(3)));
        assert_eq!(read(&[0x00, 0x01]), Err(DecodeError::Tag));
        assert_eq!(read(&[]), Ok(None));
    }
}
