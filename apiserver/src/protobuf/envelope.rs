//! What stands around messages: the envelope of an object, that of a list whose items are ready-made, and the frame of a watch event.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::encode::message as write_message;
use super::table::{self, Message};
use super::wire::{Writer, varint_length};
use super::{EncodeError, MAGIC};

/// `contentEncoding` and `contentType`, which are empty: what every envelope ends with.
pub const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];
/// Tag of a list's items.
const ITEMS: u64 = 2;

/// An encoded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The envelope, magic bytes included.
    pub envelope: Vec<u8>,
    /// How long the object's own message in it is; [`ENVELOPE_END`] follows it.
    pub message_length: usize,
}

/// What a kind is made of.
enum Form {
    Object(&'static Message),
    /// Of items of this message.
    List(&'static Message),
}

impl Form {
    fn of(api_version: &str, kind: &str) -> Option<Self> {
        let message = |kind: &str| table::message(&format!("{api_version}/{kind}"));
        match message(kind) {
            Some(object) => Some(Self::Object(object)),
            None => message(kind.strip_suffix("List")?).map(Self::List),
        }
    }
}

/// Whether objects of this kind have a protobuf form.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    Form::of(api_version, kind).is_some()
}

/// Encodes an object or list.
///
/// # Errors
/// Its kind has no messages, or a field holds what its type cannot hold.
pub fn encode(object: &Value) -> Result<Encoded, EncodeError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (Some(form), Some(fields)) = (Form::of(api_version, kind), object.as_object()) else {
        return Err(EncodeError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() });
    };
    let mut writer = Writer::default();
    writer.raw(ENVELOPE_END);
    let end = writer.end();
    match form {
        Form::Object(message) => write_message(message, fields, &mut writer, 0)?,
        Form::List(message) => {
            for item in object["items"].as_array().into_iter().flatten().rev() {
                let end = writer.end();
                write_message(message, item.as_object().ok_or(EncodeError::Field("items"))?, &mut writer, 0)?;
                writer.close(ITEMS, end);
            }
            list_metadata(&object["metadata"], &mut writer)?;
        }
    }
    let message_length = writer.end() - end;
    writer.close(2, end);
    open(&mut writer, api_version, kind);
    Ok(Encoded { envelope: writer.finish(), message_length })
}

fn list_metadata(metadata: &Value, writer: &mut Writer) -> Result<(), EncodeError> {
    let message = table::message("meta.k8s.io/v1/ListMeta").ok_or(EncodeError::Field("metadata"))?;
    let (end, none) = (writer.end(), Map::new());
    write_message(message, metadata.as_object().unwrap_or(&none), writer, 0)?;
    writer.close(1, end);
    Ok(())
}

/// The beginning of an envelope.
fn open(writer: &mut Writer, api_version: &str, kind: &str) {
    let end = writer.end();
    writer.bytes(2, kind.as_bytes());
    writer.bytes(1, api_version.as_bytes());
    writer.close(1, end);
    writer.raw(MAGIC);
}

/// What comes before the items of a list that take `items_length` bytes together, each with its [`item_opening`]; behind them
/// comes [`ENVELOPE_END`].
///
/// # Errors
/// A field of the list's metadata holds what its type cannot hold.
pub fn list_opening(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items_length: usize,
) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::default();
    list_metadata(metadata, &mut writer)?;
    let metadata = writer.finish();
    let mut writer = Writer::default();
    writer.raw(&metadata);
    // The items count as written behind the metadata.
    let length = metadata.len() + items_length;
    writer.opening(2, length);
    open(&mut writer, api_version, kind);
    Ok(writer.finish().into())
}

/// What comes before an item of this length in a list.
pub fn item_opening(message_length: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.opening(ITEMS, message_length);
    writer.finish()
}

/// How long an item is in a list, its opening included.
pub fn item_length(message_length: usize) -> usize {
    1 + varint_length(message_length as u64) + message_length
}

/// The frame of a watch event with this envelope, which is its end: the length in four bytes, then the event's message.
pub fn watch_frame(event_type: &str, envelope: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    let end = writer.end();
    writer.bytes(1, envelope);
    writer.close(2, end);
    writer.bytes(1, event_type.as_bytes());
    // No object comes near the four gibibytes that the length can say.
    let length = u32::try_from(writer.end()).unwrap_or(u32::MAX);
    writer.raw(&length.to_be_bytes());
    writer.finish()
}
