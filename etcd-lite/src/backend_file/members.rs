//! The members of a cluster as JSON, as etcd keeps them in its backend: fields in this order, empty ones left out.

use serde_json::json;

use crate::member::MemberInfo;

/// The bucket's key of a member.
pub(super) fn key(id: u64) -> Vec<u8> {
    format!("{id:x}").into_bytes()
}

/// The bucket's value of a member.
pub(super) fn value(member: &MemberInfo) -> Vec<u8> {
    let mut fields = vec![("id", json!(member.id)), ("peerURLs", json!(member.peer_urls))];
    if member.is_learner {
        fields.push(("isLearner", json!(true)));
    }
    if !member.name.is_empty() {
        fields.push(("name", json!(member.name)));
    }
    if !member.client_urls.is_empty() {
        fields.push(("clientURLs", json!(member.client_urls)));
    }
    object(&fields)
}

/// The configuration of consensus, as etcd writes raftpb.ConfState.
pub(super) fn conf_state(members: &[MemberInfo]) -> Vec<u8> {
    let ids = |is_learner: bool| -> Vec<u64> {
        let mut ids: Vec<u64> = members.iter().filter(|m| m.is_learner == is_learner).map(|m| m.id).collect();
        ids.sort_unstable();
        ids
    };
    let mut fields = vec![("voters", json!(ids(false)))];
    let learners = ids(true);
    if !learners.is_empty() {
        fields.push(("learners", json!(learners)));
    }
    fields.push(("auto_leave", json!(false)));
    object(&fields)
}

fn object(fields: &[(&str, serde_json::Value)]) -> Vec<u8> {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_as_etcd_does() {
        let member = MemberInfo {
            id: 172_715_650_900_849_554,
            name: "default".into(),
            peer_urls: vec!["http://127.0.0.1:23912".into()],
            ..MemberInfo::default()
        };
        assert_eq!(key(member.id), b"2659bf82b187392");
        let expected = r#"{"id":172715650900849554,"peerURLs":["http://127.0.0.1:23912"],"name":"default"}"#;
        assert_eq!(String::from_utf8_lossy(&value(&member)), expected);
        let expected = r#"{"voters":[172715650900849554],"auto_leave":false}"#;
        assert_eq!(String::from_utf8_lossy(&conf_state(&[member])), expected);
    }
}
