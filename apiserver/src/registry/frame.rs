//! How a watch writes its events: each a line of JSON, or a frame of protobuf with its length before it. Never decides which events there are.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use super::served_value;
use crate::cache::object::{CachedObject, EventType};
use crate::protobuf;
use crate::strategy::Strategy;

/// Makes something else of an object: a table, metadata only.
pub type Transform = Arc<dyn Fn(&CachedObject) -> Result<Value, ApiError> + Send + Sync>;

/// What events are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Lines of JSON.
    Json,
    /// Frames of protobuf.
    Protobuf,
}

impl Framing {
    /// An event with any object.
    ///
    /// # Errors
    /// The object has no protobuf form.
    pub fn event(self, event_type: &str, object: &Value) -> Result<Bytes, ApiError> {
        match self {
            Self::Json => {
                let mut line = serde_json::to_vec(&json!({"type": event_type, "object": object}))
                    .map_err(ApiError::internal)?;
                line.push(b'\n');
                Ok(line.into())
            }
            Self::Protobuf => {
                let encoded = protobuf::encode(object).map_err(ApiError::internal)?;
                Ok(protobuf::watch_frame(event_type, &encoded.envelope).into())
            }
        }
    }

    /// The event that ends a watch with an error.
    pub fn error(self, error: &ApiError) -> Bytes {
        // A `Status` has every form.
        self.event("ERROR", &error.to_status()).unwrap_or_default()
    }
}

/// What a watch makes of events.
#[derive(Clone)]
pub struct Frames {
    /// How they are written.
    pub framing: Framing,
    /// What objects are turned into; `None`: as they are.
    pub transform: Option<Transform>,
}

impl Frames {
    /// An event with a cached object.
    pub(super) fn of(
        &self,
        strategy: &dyn Strategy,
        event_type: EventType,
        object: &CachedObject,
    ) -> Result<Bytes, ApiError> {
        if let Some(transform) = &self.transform {
            return self.framing.event(event_type.as_str(), &transform(object)?);
        }
        if strategy.stored_as().is_some() {
            return self.framing.event(event_type.as_str(), &served_value(strategy, object)?);
        }
        match self.framing {
            Framing::Json => Ok(object.line(event_type)),
            Framing::Protobuf => object.frame(event_type).map_err(ApiError::internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_end_a_watch_in_either_form() {
        let error = ApiError::expired("too old resource version: 1 (2)");
        let line = Framing::Json.error(&error);
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
        let frame = Framing::Protobuf.error(&error);
        let at = frame.windows(4).position(|bytes| bytes == b"k8s\0").expect("an envelope");
        let status = protobuf::decode(&frame[at..], "", "").expect("decodes");
        assert_eq!(status, event["object"]);
        let table = json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"});
        assert!(Framing::Protobuf.event("ADDED", &table).is_err());
    }
}
