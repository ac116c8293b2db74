//! Encryption at rest (`--encryption-provider-config`): values are sealed on their way to the store and opened on their way back, by the rule for
//! their resource. Everything behind [`super::Storage`] sees plain values only. Keys of the store stay as they are.
//!
//! A sealed value begins with `k8s:enc:PROVIDER:v1:KEY:`, as upstream has it. The first key of a rule seals; all keys open.

mod config;
mod following;
mod providers;

use std::path::Path;

use bytes::Bytes;
use coracle_proto::mvccpb::KeyValue;

pub(super) use following::Rules;
use providers::Provider;

/// What all sealed values begin with.
const SEALED: &[u8] = b"k8s:enc:";

/// Why a value cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    /// No key of the rule made it, or it is plain where the rule has no `identity`.
    #[error("no matching prefix found")]
    NoMatchingPrefix,
    /// The key is there, but the value was changed, belongs elsewhere, or was made with another secret of that name.
    #[error("it does not open with the key of its name")]
    Unauthentic,
}

/// The rules, first match first. Without any, values stay plain.
#[derive(Default)]
pub(super) struct Encryption {
    rules: Vec<Rule>,
}

/// What happens to the values of some resources.
struct Rule {
    /// What their keys begin with; the empty text for all.
    prefixes: Vec<String>,
    /// The first seals.
    providers: Vec<Provider>,
}

impl Encryption {
    /// Reads `--encryption-provider-config`. `prefix` is what all keys of the store begin with.
    ///
    /// # Errors
    /// What is wrong with the file, naming it.
    pub(super) fn read(path: &Path, prefix: &str) -> Result<Self, String> {
        let wrong = |error: String| format!("--encryption-provider-config: {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let rules = config::parse(&text, prefix).map_err(wrong)?;
        Ok(Self { rules })
    }

    fn providers(&self, key: &[u8]) -> &[Provider] {
        let covers = |rule: &&Rule| rule.prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        self.rules.iter().find(covers).map_or(&[], |rule| &rule.providers)
    }

    /// The value as it is stored under `key`.
    pub(super) fn seal(&self, key: &[u8], value: Bytes) -> Bytes {
        match self.providers(key).first() {
            Some(provider) => provider.seal(key, value),
            None => value,
        }
    }

    /// The plain value of what is stored under `key`.
    ///
    /// # Errors
    /// See [`OpenError`].
    fn open(&self, key: &[u8], stored: &Bytes) -> Result<Bytes, OpenError> {
        let providers = self.providers(key);
        if providers.is_empty() {
            return if stored.starts_with(SEALED) {
                Err(OpenError::NoMatchingPrefix)
            } else {
                Ok(stored.clone())
            };
        }
        let mut error = OpenError::NoMatchingPrefix;
        // Several keys may have one name; upstream tries them all.
        for provider in providers {
            match provider.open(key, stored) {
                Ok(value) => return Ok(value),
                Err(OpenError::NoMatchingPrefix) => {}
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    /// Puts plain values in place of stored ones. One that does not open is logged and becomes empty, which is no object.
    pub(super) fn open_all<'a>(&self, found: impl Iterator<Item = &'a mut KeyValue>) {
        // Deletions have no value.
        for kv in found.filter(|kv| !kv.value.is_empty()) {
            kv.value = self.open(&kv.key, &kv.value).unwrap_or_else(|error| {
                let key = String::from_utf8_lossy(&kv.key);
                tracing::error!(%key, %error, "unable to transform a stored value; see --encryption-provider-config");
                Bytes::new()
            });
        }
    }

    /// Whether a value under `key` may be stored in another way than it would be now, so that writing the same again has a use.
    pub(super) fn may_be_stale(&self, key: &[u8]) -> bool {
        self.providers(key).len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: &str = "keys: [{name: two, secret: MDEyMzQ1Njc4OWFiY2RlZg==}, {name: one, secret: ZmVkY2JhOTg3NjU0MzIxMA==}]";
    const SECRETBOX: &str = "keys: [{name: box, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]";

    fn rules(providers: &str) -> Encryption {
        let text = format!(
            "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\n\
             resources: [{{resources: [secrets, deployments.apps], providers: [{providers}]}}]"
        );
        Encryption { rules: config::parse(&text, "/registry").expect("a good file") }
    }

    const KEY: &[u8] = b"/registry/secrets/default/a";

    #[test]
    fn every_provider_seals_under_its_name_and_opens_what_any_of_the_rule_sealed() {
        let plain = Bytes::from_static(b"{\"kind\":\"Secret\"}");
        for (provider, begins) in [
            (format!("{{aesgcm: {{{KEYS}}}}}"), "k8s:enc:aesgcm:v1:two:"),
            (format!("{{aescbc: {{{KEYS}}}}}"), "k8s:enc:aescbc:v1:two:"),
            (format!("{{secretbox: {{{SECRETBOX}}}}}"), "k8s:enc:secretbox:v1:box:"),
        ] {
            let alone = rules(&provider);
            let sealed = alone.seal(KEY, plain.clone());
            assert!(sealed.starts_with(begins.as_bytes()), "{provider}");
            assert!(!sealed.windows(6).any(|window| window == b"Secret"));
            assert_eq!(alone.open(KEY, &sealed), Ok(plain.clone()));
            assert_eq!(alone.open(KEY, &plain), Err(OpenError::NoMatchingPrefix), "plain, without identity");
            let turned_off = rules(&format!("{{identity: {{}}}}, {provider}"));
            assert_eq!(turned_off.seal(KEY, plain.clone()), plain);
            assert_eq!(turned_off.open(KEY, &sealed), Ok(plain.clone()));
            assert!(turned_off.may_be_stale(KEY) && !Encryption::default().may_be_stale(KEY));
            assert_eq!(Encryption::default().open(KEY, &sealed), Err(OpenError::NoMatchingPrefix));
            let elsewhere = b"/registry/configmaps/default/a";
            assert_eq!(alone.seal(elsewhere, plain.clone()), plain);
        }
    }

    #[test]
    fn a_value_moved_to_another_key_or_changed_does_not_open() {
        let encryption = rules(&format!("{{aesgcm: {{{KEYS}}}}}"));
        let sealed = encryption.seal(KEY, Bytes::from_static(b"{}"));
        assert_eq!(encryption.open(b"/registry/secrets/default/b", &sealed), Err(OpenError::Unauthentic));
        let mut changed = sealed.to_vec();
        *changed.last_mut().expect("bytes") ^= 1;
        assert_eq!(encryption.open(KEY, &changed.into()), Err(OpenError::Unauthentic));
        assert_eq!(encryption.open(KEY, &sealed.slice(..30)), Err(OpenError::Unauthentic), "cut short");
    }

    #[test]
    fn the_key_before_opens_after_a_rotation() {
        let before = rules("{aescbc: {keys: [{name: one, secret: ZmVkY2JhOTg3NjU0MzIxMA==}]}}");
        let sealed = before.seal(KEY, Bytes::from_static(b"{}"));
        let after = rules(&format!("{{aescbc: {{{KEYS}}}}}"));
        assert_eq!(after.open(KEY, &sealed), Ok(Bytes::from_static(b"{}")));
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value in prop::collection::vec(any::<u8>(), 0..100), which in 0..3_usize) {
            let provider = [
                format!("{{aesgcm: {{{KEYS}}}}}"),
                format!("{{aescbc: {{{KEYS}}}}}"),
                format!("{{secretbox: {{{SECRETBOX}}}}}"),
            ];
            let encryption = rules(&provider[which]);
            let value = Bytes::from(value);
            prop_assert_eq!(encryption.open(KEY, &encryption.seal(KEY, value.clone())), Ok(value));
        }
    }
}
