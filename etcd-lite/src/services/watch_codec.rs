//! Watch responses on the wire. The events of a response are encoded once, however many watchers get them; what differs between
//! watchers is a small head.

use bytes::{BufMut, Bytes, BytesMut};
use coracle_proto::etcdserverpb::{ResponseHeader, WatchRequest, WatchResponse};
use etcd_lite_core::Event;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Field number of `WatchResponse.events`.
const EVENTS_TAG: u32 = 11;

/// A watch response in two parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchFrame {
    /// Everything but the events.
    pub(crate) head: WatchResponse,
    /// The `events` fields, encoded.
    pub(crate) events: Bytes,
}

impl WatchFrame {
    /// A frame without events.
    pub(crate) fn of(head: WatchResponse) -> Self {
        Self { head, events: Bytes::new() }
    }

    /// Events for one watcher.
    pub(crate) fn with_events(header: ResponseHeader, watch_id: i64, part: &EncodedPart) -> Self {
        let head = WatchResponse {
            header: Some(header),
            watch_id,
            fragment: part.is_fragment,
            ..WatchResponse::default()
        };
        Self { head, events: part.events.clone() }
    }

    /// About what the frame holds in memory, for bounding queues.
    pub(crate) fn size_bytes(&self) -> usize {
        const HEAD: usize = 64;
        HEAD + self.events.len()
    }
}

/// Encoded events of one response.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPart {
    pub(crate) events: Bytes,
    /// More of the same revision follows in the next part.
    pub(crate) is_fragment: bool,
}

/// What a watcher wants to see of the events in its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) with_previous: bool,
    pub(crate) without_puts: bool,
    pub(crate) without_deletes: bool,
    /// Whether a revision may be split over several responses.
    pub(crate) may_fragment: bool,
}

impl View {
    /// How many different views there are.
    pub(crate) const COUNT: usize = 16;

    /// A number below [`Self::COUNT`] for each different view.
    pub(crate) fn number(self) -> usize {
        usize::from(self.with_previous)
            + 2 * usize::from(self.without_puts)
            + 4 * usize::from(self.without_deletes)
            + 8 * usize::from(self.may_fragment)
    }

    pub(crate) fn wants(self, event: &Event) -> bool {
        !(if event.version.tombstone { self.without_deletes } else { self.without_puts })
    }

    /// Encodes the wanted ones of some events as one response, or, when they may be split, as several of about `part_bytes_max`.
    /// Empty when none is wanted.
    pub(crate) fn encode<'a>(
        self,
        events: impl IntoIterator<Item = &'a Event>,
        part_bytes_max: usize,
    ) -> Vec<EncodedPart> {
        let mut parts: Vec<EncodedPart> = Vec::new();
        let mut buffer = BytesMut::new();
        for event in events.into_iter().filter(|event| self.wants(event)) {
            if self.may_fragment
                && !buffer.is_empty()
                && buffer.len() + event.encoded_len(self.with_previous) > part_bytes_max
            {
                parts.push(EncodedPart { events: buffer.split().freeze(), is_fragment: true });
            }
            event.encode_field(EVENTS_TAG, self.with_previous, &mut buffer);
        }
        if !buffer.is_empty() {
            parts.push(EncodedPart { events: buffer.freeze(), is_fragment: false });
        }
        parts
    }
}

/// Reads watch requests, writes [`WatchFrame`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = WatchFrame;
    type Decode = WatchRequest;
    type Encoder = WatchFrameEncoder;
    type Decoder = ProstDecoder<WatchRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        WatchFrameEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<WatchResponse, WatchRequest>::raw_decoder(BufferSettings::default())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchFrameEncoder;

impl Encoder for WatchFrameEncoder {
    type Item = WatchFrame;
    type Error = Status;

    fn encode(&mut self, frame: WatchFrame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.head.encoded_len() + frame.events.len());
        frame.head.encode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        buffer.put(frame.events);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use etcd_lite_core::{Life, Revision, Version};

    fn event(main: i64, value_length: usize) -> Event {
        let revision = Revision { main, sub: 0 };
        let version = if value_length == 0 {
            Version::tombstone(revision, b"key")
        } else {
            let life = Life { create_revision: 1, version: 1, lease: 0 };
            Version::put(revision, b"key", &vec![7; value_length], life)
        };
        Event { version: Arc::new(version), previous: None }
    }

    fn decoded(part: &EncodedPart) -> WatchResponse {
        let frame = WatchFrame::with_events(ResponseHeader { revision: 9, ..Default::default() }, 5, part);
        let mut bytes = frame.head.encode_to_vec();
        bytes.extend_from_slice(&frame.events);
        WatchResponse::decode(&bytes[..]).expect("a watch response")
    }

    #[test]
    fn a_frame_is_a_watch_response() {
        let events = [event(2, 10), event(3, 0)];
        let parts = View::default().encode(&events, 1);
        assert_eq!(parts.len(), 1, "not split unless that is allowed");
        let response = decoded(&parts[0]);
        assert_eq!((response.watch_id, response.header.unwrap_or_default().revision), (5, 9));
        assert_eq!(response.events, events.iter().map(|e| e.to_proto(false)).collect::<Vec<_>>());
    }

    #[test]
    fn fragments_are_marked_but_the_last() {
        let view = View { may_fragment: true, ..View::default() };
        let parts = view.encode(&[event(2, 100), event(2, 100), event(2, 100)], 150);
        let fragments: Vec<(bool, usize)> =
            parts.iter().map(|part| (decoded(part).fragment, decoded(part).events.len())).collect();
        assert_eq!(fragments, [(true, 1), (true, 1), (false, 1)]);
    }

    #[test]
    fn filters_drop_events_and_nothing_left_is_no_frame() {
        let view = View { without_deletes: true, ..View::default() };
        assert!(view.encode(&[event(2, 0)], 100).is_empty());
        let view = View { without_puts: true, ..View::default() };
        assert_eq!(decoded(&view.encode(&[event(2, 0), event(3, 1)], 100)[0]).events.len(), 1);
    }
}
