//! The little of HTTP/2's framing (RFC 9113) that is looked at beside the library: how a connection begins and what a frame's head says.

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Length of what follows the head, in bytes.
    pub(super) payload_bytes: usize,
    /// What it is.
    pub(super) kind: u8,
    /// What they mean depends on the kind.
    pub(super) flags: u8,
    /// Of which stream, 0 for the connection.
    pub(super) stream: u32,
}

impl Head {
    /// Reads a head.
    pub(super) fn of([a, b, c, kind, flags, stream @ ..]: [u8; HEAD_BYTES]) -> Self {
        Self {
            payload_bytes: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }
}
