//! The wire form of protobuf: tags, varints and lengths. Never knows what a field means.

use super::DecodeError;

/// The fields of one message, one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// What stands behind a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// A number or truth value.
    Varint(u64),
    /// Text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of the API has them.
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
            1 => self.take(8).map(|_| Payload::Fixed)?,
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

#[cfg(test)]
mod tests {
    use super::*;

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
