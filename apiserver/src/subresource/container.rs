//! Which container of a pod a request means. Pure.

use coracle_api::meta::get;
use coracle_api::status::ApiError;
use serde_json::Value;

/// The annotation that names the container for requests that name none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    get(pod, &["spec", list])
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(|container| container.get("name")?.as_str()).collect())
        .unwrap_or_default()
}

/// The container's name: the one asked for, the annotated one, or the only one.
///
/// # Errors
/// 400 when there are several to choose from, or none of that name.
pub fn choose(pod: &Value, pod_name: &str, asked: &str) -> Result<String, ApiError> {
    let (containers, init, ephemeral) =
        (names(pod, "containers"), names(pod, "initContainers"), names(pod, "ephemeralContainers"));
    let known = |name: &str| [&containers, &init, &ephemeral].iter().any(|list| list.contains(&name));
    if !asked.is_empty() {
        return if known(asked) {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
        };
    }
    let annotated = get(pod, &["metadata", "annotations", DEFAULT_CONTAINER]).and_then(Value::as_str);
    if let Some(name) = annotated.filter(|name| known(name)) {
        return Ok(name.to_owned());
    }
    if let [only] = containers.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut text = format!("a container name must be specified for pod {pod_name}");
    if !containers.is_empty() {
        text.push_str(&format!(", choose one of: [{}]", containers.join(" ")));
    }
    for (list, what) in [(&init, "init"), (&ephemeral, "ephemeral")] {
        if !list.is_empty() {
            text.push_str(&format!(" or one of the {what} containers: [{}]", list.join(" ")));
        }
    }
    Err(ApiError::bad_request(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str], init: &[&str], annotated: Option<&str>) -> Value {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": list(containers), "initContainers": list(init)}});
        if let Some(name) = annotated {
            pod["metadata"]["annotations"][DEFAULT_CONTAINER] = name.into();
        }
        pod
    }

    #[test]
    fn a_container_is_chosen_or_the_choice_is_named() {
        let several = "a container name must be specified for pod x, choose one of: [a b]";
        let with_init = "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]";
        let unknown = "container c is not valid for pod x";
        for (pod, asked, expected) in [
            (pod(&["a"], &[], None), "", Ok("a")),
            (pod(&["a", "b"], &[], None), "b", Ok("b")),
            (pod(&["a", "b"], &["i"], None), "i", Ok("i")),
            (pod(&["a", "b"], &[], Some("b")), "", Ok("b")),
            (pod(&["a", "b"], &[], Some("gone")), "", Err(several)),
            (pod(&["a", "b"], &[], None), "", Err(several)),
            (pod(&["a", "b"], &["i"], None), "", Err(with_init)),
            (pod(&["a"], &[], None), "c", Err(unknown)),
            (pod(&[], &[], None), "", Err("a container name must be specified for pod x")),
        ] {
            let chosen = choose(&pod, "x", asked);
            let chosen = chosen.as_deref().map_err(|error| error.message().to_owned());
            assert_eq!(chosen, expected.map_err(str::to_owned));
        }
    }
}
