//! Acting as someone else: the `Impersonate-*` headers. Whether the real user may is for authorization to say.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::{AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::ResourceAttributes;
use crate::server::request_info::UserInfo;

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that the headers ask to act as; `None` without such headers.
///
/// # Errors
/// Groups, uid or extra facts without a user.
pub fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            extra.entry(unescape(key)).or_default().push(value.to_owned());
        }
    }
    let (name, uid) = (text("impersonate-user"), text("impersonate-uid"));
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err("requested attributes without impersonating a user".into());
    }
    if let Some((namespace, _)) = name.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'))
        && groups.is_empty()
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = if name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(known.into());
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// What somebody must be allowed to act as `wanted`. Groups that come by themselves need no permission.
pub fn needed<'a>(wanted: &'a UserInfo, headers: &'a HeaderMap) -> Vec<ResourceAttributes<'a>> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let asked = |group, resource, name| ResourceAttributes {
        verb: "impersonate",
        group,
        resource,
        name,
        ..ResourceAttributes::default()
    };
    let account = wanted.name.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
    let mut needed = vec![match account {
        Some((namespace, name)) => ResourceAttributes { namespace, ..asked("", "serviceaccounts", name) },
        None => asked("", "users", &wanted.name),
    }];
    let groups = headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    needed.extend(groups.map(|group| asked("", "groups", group)));
    for (key, values) in &wanted.extra {
        let of_key =
            |name| ResourceAttributes { subresource: key, ..asked(AUTHENTICATION, "userextras", name) };
        needed.extend(values.iter().map(|value| of_key(value)));
    }
    if !wanted.uid.is_empty() {
        needed.push(asked(AUTHENTICATION, "uids", &wanted.uid));
    }
    needed
}

/// Undoes percent-encoding in a header name's tail.
pub fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().expect("header"));
        }
        headers
    }

    #[test]
    fn service_accounts_get_their_groups() {
        let user = wanted(&headers(&[("impersonate-user", "system:serviceaccount:a:b")]))
            .expect("ok")
            .expect("user");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
    }

    #[test]
    fn groups_need_a_user_and_extra_keys_are_unescaped() {
        assert_eq!(wanted(&headers(&[])), Ok(None));
        assert!(wanted(&headers(&[("impersonate-group", "x")])).is_err());
        let user = wanted(&headers(&[("impersonate-user", "u"), ("impersonate-extra-a%2fb", "1")]))
            .expect("ok")
            .expect("user");
        assert_eq!(user.extra["a/b"], ["1"]);
        let needed: Vec<String> = needed(&user, &headers(&[("impersonate-group", "g")]))
            .iter()
            .map(|asked| format!("{}/{}/{}:{}", asked.group, asked.resource, asked.subresource, asked.name))
            .collect();
        assert_eq!(needed, ["/users/:u", "/groups/:g", "authentication.k8s.io/userextras/a/b:1"]);
    }
}
