//! The strategy of kinds that only differ in what they demand: a row of functions and answers each, with or without a status.

use coracle_api::field::FieldError;
use coracle_api::kinds::access;
use jiff::Timestamp;
use serde_json::Value;

use super::Strategy;
use super::common::{
    Validate, ValidateUpdate, differs, is_status, keep, keep_all_but_status, next_generation, set_generation,
    text_at,
};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// When a kind's generation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// There is none.
    None,
    /// It is 1 for ever.
    One,
    /// It starts at 1 and counts changes of everything but the metadata.
    Content,
    /// It starts at 1 and counts changes of labels too.
    ContentAndLabels,
    /// It starts at 1 and counts changes of this field.
    Of(&'static str),
    /// It counts changes of this field, and is missing before.
    OfChanges(&'static str),
}

/// What is special about a kind's status.
pub(super) struct Status {
    /// What a new object's status is; null for none.
    pub(super) initial: fn() -> Value,
    /// Everything wrong with a changed status.
    pub(super) validate: ValidateUpdate,
    /// Whether a write of the status may change labels, annotations, finalizers and owners.
    pub(super) writes_metadata: bool,
}

/// A kind.
pub(super) struct Standard {
    pub(super) default: fn(&mut Value),
    /// Fills in what follows from other fields, after admission and on every write but of the status.
    pub(super) normalize: fn(&mut Value),
    pub(super) validate: Validate,
    pub(super) validate_update: ValidateUpdate,
    pub(super) status: Option<Status>,
    /// Writes times into a status; the stored object is absent for a new one.
    pub(super) stamp: fn(&mut Value, Option<&Value>, Timestamp),
    pub(super) generation: Generation,
    pub(super) create_on_update: bool,
    pub(super) unconditional_update: bool,
    pub(super) returns_deleted: bool,
    /// Text fields that can be selected by: the name in selectors and the path.
    pub(super) fields: &'static [(&'static str, &'static [&'static str])],
    pub(super) field_names: &'static [&'static str],
    /// What clients are told with every write: that the server does not obey such objects yet.
    pub(super) warning: Option<&'static str>,
}

fn nothing(_: &mut Value) {}

fn no_stamp(_: &mut Value, _: Option<&Value>, _: Timestamp) {}

/// What rows start from; the checks are always their own.
pub(super) const fn standard(validate: Validate, validate_update: ValidateUpdate) -> Standard {
    Standard {
        default: nothing,
        normalize: nothing,
        validate,
        validate_update,
        status: None,
        stamp: no_stamp,
        generation: Generation::None,
        create_on_update: false,
        unconditional_update: true,
        returns_deleted: false,
        fields: &[],
        field_names: &[],
        warning: None,
    }
}

impl Generation {
    fn starts(self) -> bool {
        !matches!(self, Self::None | Self::OfChanges(_))
    }

    fn counts(self, new: &Value, old: &Value) -> bool {
        match self {
            Self::None | Self::One => false,
            Self::Content => content_differs(new, old),
            Self::ContentAndLabels => content_differs(new, old) || labels_differ(new, old),
            Self::Of(field) | Self::OfChanges(field) => differs(new, old, field),
        }
    }
}

fn content_differs(new: &Value, old: &Value) -> bool {
    let keys = |object: &Value| object.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    keys(new).into_iter().chain(keys(old)).flatten().any(|key| key != "metadata" && differs(new, old, &key))
}

fn labels_differ(new: &Value, old: &Value) -> bool {
    let labels = |object: &Value| coracle_api::meta::labels(object).cloned().unwrap_or_default();
    labels(new) != labels(old)
}

impl Standard {
    fn stamped(&self, object: &mut Value, old: Option<&Value>) {
        (self.stamp)(object, old, meta::now());
    }
}

impl Strategy for Standard {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        if self.generation.starts() {
            set_generation(object, 1);
        }
        if let Some(status) = &self.status {
            match (status.initial)() {
                Value::Null => {
                    access::remove(object, "status");
                }
                initial => access::set(object, "status", initial),
            }
        }
        (self.normalize)(object);
        self.stamped(object, None);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            keep_all_but_status(new, old);
            if self.status.as_ref().is_some_and(|status| !status.writes_metadata) {
                for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    meta::copy_field(old, new, field);
                }
            }
            self.stamped(new, Some(old));
            return;
        }
        if self.status.is_some() {
            keep(new, old, "status");
        }
        (self.normalize)(new);
        if self.generation.counts(new, old) {
            next_generation(new, old);
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        match &self.status {
            Some(status) if is_status(request) => (status.validate)(new, old),
            _ => (self.validate_update)(new, old),
        }
    }

    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        self.warning.map(str::to_owned).into_iter().collect()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.fields.iter().map(|(name, path)| (*name, text_at(object, path))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        self.field_names
    }

    fn returns_deleted_object(&self) -> bool {
        self.returns_deleted
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::Verb;
    use serde_json::json;

    static KIND: Standard = Standard {
        status: Some(Status {
            initial: || json!({"phase": "New"}),
            validate: |_, _| Vec::new(),
            writes_metadata: false,
        }),
        generation: Generation::Of("spec"),
        ..standard(|_| Vec::new(), |_, _| Vec::new())
    };

    fn request(subresource: Option<&str>) -> RequestInfo {
        let quotas = coracle_api::resource::lookup("", "v1", "resourcequotas").expect("quotas");
        let mut request = RequestInfo::internal(Verb::Update, quotas, Some("a"), Some("b"));
        request.subresource = subresource.and_then(|name| quotas.subresource(name));
        request
    }

    #[test]
    fn a_new_object_starts_over_and_each_write_changes_its_part_only() {
        let mut new = json!({"metadata": {"name": "b"}, "spec": {"a": 1}, "status": {"phase": "Old"}});
        KIND.prepare_for_create(&request(None), &mut new);
        assert_eq!(
            new,
            json!({"metadata": {"name": "b", "generation": 1}, "spec": {"a": 1}, "status": {"phase": "New"}})
        );
        let old = new.clone();
        let changed = json!({"metadata": {"name": "b", "generation": 1, "labels": {"x": "y"}}, "spec": {"a": 2}, "status": {"phase": "Done"}});
        let mut of_spec = changed.clone();
        KIND.prepare_for_update(&request(None), &mut of_spec, &old);
        assert_eq!((&of_spec["spec"]["a"], &of_spec["status"]["phase"]), (&json!(2), &json!("New")));
        assert_eq!(of_spec["metadata"]["generation"], 2);
        let mut of_status = changed;
        KIND.prepare_for_update(&request(Some("status")), &mut of_status, &old);
        assert_eq!((&of_status["spec"]["a"], &of_status["status"]["phase"]), (&json!(1), &json!("Done")));
        assert_eq!(of_status["metadata"].get("labels"), None);
    }
}
