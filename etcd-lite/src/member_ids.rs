//! Ids of members and clusters, computed from peer URLs as etcd computes them, and which peer URLs are proper ones.

use sha1::{Digest, Sha1};

use crate::options::{EtcdUrl, plain};

/// The id of a member at these peer URLs, in the cluster named by its token; added at a time (seconds since 1970) or there from the
/// beginning. Never 0, which means "nobody".
pub fn member_id(peer_urls: &[String], token: &str, added_at_seconds: Option<u64>) -> u64 {
    let mut sorted = peer_urls.to_vec();
    sorted.sort();
    let mut text = sorted.concat();
    text.push_str(token);
    if let Some(seconds) = added_at_seconds {
        text.push_str(&seconds.to_string());
    }
    first_bytes(text.as_bytes())
}

/// The id of a cluster that begins with these members.
pub fn cluster_id(mut member_ids: Vec<u64>) -> u64 {
    member_ids.sort_unstable();
    let bytes: Vec<u8> = member_ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_bytes(&bytes)
}

fn first_bytes(text: &[u8]) -> u64 {
    let hash = Sha1::digest(text);
    let first = hash.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
    first.max(1)
}

/// The peer URLs of a member as etcd takes them, sorted. `None` if one is no such URL or there are none.
pub fn proper_peer_urls(urls: &[String]) -> Option<Vec<String>> {
    let proper = |url: &String| url.parse::<EtcdUrl>().ok().map(|url| plain(&url));
    let mut proper: Vec<String> = urls.iter().map(proper).collect::<Option<_>>()?;
    proper.sort();
    (!proper.is_empty()).then_some(proper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_etcd() {
        // As etcd 3.5.1 printed them for --name a --initial-cluster a=http://127.0.0.1:42380.
        let id = member_id(&["http://127.0.0.1:42380".to_owned()], "etcd-cluster", None);
        assert_eq!((id, cluster_id(vec![id])), (0x6678_8015_7b88_12c8, 0xdc50_b8da_ae93_b3e0));
        assert_ne!(member_id(&["http://127.0.0.1:42380".to_owned()], "", Some(1)), id);
    }

    #[test]
    fn peer_urls_have_scheme_host_and_port_and_nothing_else() {
        let proper = |url: &str| proper_peer_urls(&[url.to_owned()]);
        for url in ["http://a:1", "https://10.0.0.1:2380", "http://[::1]:2380", "http://a:80"] {
            assert_eq!(proper(url), Some(vec![url.to_owned()]));
        }
        for url in ["", "a:1", "http://a", "http://a:1/path", "ftp://a:1", "http://a:b", "http://a:1/"] {
            assert_eq!(proper(url), None, "{url}");
        }
        assert_eq!(proper_peer_urls(&[]), None);
    }
}
