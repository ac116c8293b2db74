//! The objects that a binding hands to its policy as `params`.

use std::sync::Arc;

use coracle_api::kinds::access::{present, text};
use coracle_api::resource::Resource;
use coracle_api::selector::LabelSelector;
use coracle_api::status::ApiError;
use serde_json::Value;

use crate::registry::Registry;

/// The parameters of a binding: one null where there are none to look for, nothing where there may be none.
///
/// # Errors
/// The store's errors; inside, why the binding makes no sense here.
pub(super) async fn collect(
    registry: &Registry,
    row: Option<&'static Resource>,
    reference: &Value,
    namespace: &str,
) -> Result<Result<Vec<Arc<Value>>, String>, ApiError> {
    let (Some(row), false) = (row, reference.is_null()) else { return Ok(Ok(vec![Arc::default()])) };
    let namespace = match (row.namespaced, text(reference, "namespace")) {
        (false, "") => "",
        (false, _) => {
            let text = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Ok(Err(text.to_owned()));
        }
        (true, "") if namespace.is_empty() => {
            let text =
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Ok(Err(text.to_owned()));
        }
        (true, "") => namespace,
        (true, named) => named,
    };
    let found = match (text(reference, "name"), present(reference, "selector")) {
        ("", selector) => {
            let selector = match selector.map(LabelSelector::from_object).transpose() {
                Ok(selector) => selector.unwrap_or_else(LabelSelector::everything),
                Err(error) => return Ok(Err(error.to_string())),
            };
            let mut all = registry.all_known(row, namespace).await?;
            all.retain(|object| selector.matches_object(object));
            all
        }
        (name, _) => match registry.known(row, namespace, name).await {
            Ok(object) => vec![object],
            Err(error) if error.code() == 404 => Vec::new(),
            Err(error) => return Err(error),
        },
    };
    if found.is_empty() && text(reference, "parameterNotFoundAction") != "Allow" {
        return Ok(Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()));
    }
    Ok(Ok(found))
}
