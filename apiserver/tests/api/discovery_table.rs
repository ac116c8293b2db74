//! What is served beside what Kubernetes v1.35 serves: every group, kind, verb and subresource of `tests/discovery/v1.35.txt` is in the
//! running server's discovery or said to be absent, nothing else is, and `docs/api-table.md` says so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::common::Cluster;
use serde_json::Value;

const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A resource as discovery shows it, in one form for both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    kind: String,
    scope: String,
    singular: String,
    short_names: String,
    categories: String,
    verbs: String,
    /// `[GROUP/VERSION/]KIND:VERBS` by name.
    subresources: BTreeMap<String, String>,
}

/// A line of the table of v1.35.
struct Row {
    mark: String,
    group_version: String,
    plural: String,
    shown: Shown,
    absent: BTreeMap<String, String>,
    reason: String,
}

fn listed(field: &str) -> String {
    let mut items: Vec<&str> = field.split(',').filter(|item| *item != "-").collect();
    items.sort_unstable();
    items.join(",")
}

fn row(line: &str) -> Row {
    let (line, reason) = line.split_once(" # ").unwrap_or((line, ""));
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [mark, group_version, plural, kind, scope, singular, short_names, categories, verbs, rest @ ..] =
        &fields[..]
    else {
        panic!("a line of nine fields or more: {line}");
    };
    let (mut subresources, mut absent) = (BTreeMap::new(), BTreeMap::new());
    for field in rest {
        let (list, field) = match field.strip_prefix('!') {
            Some(field) => (&mut absent, field),
            None => (&mut subresources, *field),
        };
        let usual = || (field, format!("{kind}:get,patch,update"));
        let (name, form) = field.split_once('=').map_or_else(usual, |(name, form)| (name, form.to_owned()));
        list.insert(name.to_owned(), form);
    }
    let shown = Shown {
        kind: (*kind).to_owned(),
        scope: (*scope).to_owned(),
        singular: (*singular).to_owned(),
        short_names: listed(short_names),
        categories: listed(categories),
        verbs: if *verbs == "*" { ALL_VERBS.to_owned() } else { listed(verbs) },
        subresources,
    };
    let (mark, group_version) = ((*mark).to_owned(), (*group_version).to_owned());
    Row { mark, group_version, plural: (*plural).to_owned(), shown, absent, reason: reason.to_owned() }
}

fn joined(list: &Value) -> String {
    let mut items: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.sort_unstable();
    items.join(",")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `[GROUP/VERSION/]KIND` of a response; the group and version of the resource itself are left out.
fn response_kind(kind: &Value, own: &str) -> String {
    let of = |field: &str| kind[field].as_str().unwrap_or_default();
    let group_version = match (of("group"), of("version")) {
        ("", version) => version.to_owned(),
        (group, version) => format!("{group}/{version}"),
    };
    if group_version.is_empty() || group_version == own {
        of("kind").to_owned()
    } else {
        format!("{group_version}/{}", of("kind"))
    }
}

/// What a discovery document shows, by group, version and plural.
fn shown(document: &Value, into: &mut BTreeMap<(String, String), Shown>) {
    for group in document["items"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            let name = text(&version["version"]);
            let group_version = match group["metadata"]["name"].as_str() {
                None | Some("") => name,
                Some(group) => format!("{group}/{name}"),
            };
            for resource in version["resources"].as_array().expect("resources") {
                let subresource = |part: &Value| {
                    let form = format!(
                        "{}:{}",
                        response_kind(&part["responseKind"], &group_version),
                        joined(&part["verbs"])
                    );
                    (text(&part["subresource"]), form)
                };
                let shown = Shown {
                    kind: response_kind(&resource["responseKind"], &group_version),
                    scope: text(&resource["scope"]).to_lowercase(),
                    singular: text(&resource["singularResource"]),
                    short_names: joined(&resource["shortNames"]),
                    categories: joined(&resource["categories"]),
                    verbs: joined(&resource["verbs"]),
                    subresources: resource["subresources"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(subresource)
                        .collect(),
                };
                into.insert((group_version.clone(), text(&resource["resource"])), shown);
            }
        }
    }
}

fn documented(rows: &[Row]) -> String {
    let mut page = String::from(
        "# The API, kind by kind\n\n\
         Generated by `UPDATE_API_TABLE=1 cargo nextest run -p apiserver discovery_table`; the same test compares it with the\n\
         running server's discovery, and that with what Kubernetes v1.35 serves with its default flags.\n\n\
         - **acts**: served, validated, stored, and a controller, the scheduler, a node, admission or the server itself acts on it;\n\
         - **stored**: served, validated and stored, and nothing acts on it yet;\n\
         - **asked**: served when `--runtime-config` asks for the version, here as in Kubernetes v1.35, and not without;\n\
         - **absent**: not served, with the reason.\n\n\
         *all* are create, delete, deletecollection, get, list, patch, update and watch. A subresource without verbs has get, patch and\n\
         update. Of the versions that Kubernetes v1.35 serves only when asked to (alpha and beta) those that are not here are not served.\n",
    );
    let mut group = "";
    for row in rows {
        if row.group_version != group {
            group = &row.group_version;
            let _ = write!(
                page,
                "\n## {group}\n\n| Kind | Resource | Verbs | Subresources | |\n| --- | --- | --- | --- | --- |\n"
            );
        }
        let verbs = if row.shown.verbs == ALL_VERBS { "all" } else { &row.shown.verbs };
        let part = |(name, form): (&String, &String)| match form.split_once(':') {
            Some((_, "get,patch,update")) | None => name.clone(),
            Some((_, verbs)) => format!("{name} ({})", verbs.replace(',', ", ")),
        };
        let parts: Vec<String> = row.shown.subresources.iter().map(part).collect();
        let mut said = format!("**{}**", row.mark);
        for name in row.absent.keys() {
            let _ = write!(said, "; {name} is **absent**");
        }
        if !row.reason.is_empty() {
            let _ = write!(said, ": {}", row.reason);
        }
        let scope = if row.shown.scope == "cluster" { "" } else { ", in namespaces" };
        let _ = writeln!(
            page,
            "| {} | {}{scope} | {} | {} | {said} |",
            row.shown.kind,
            row.plural,
            verbs.replace(',', ", "),
            parts.join(", ")
        );
    }
    page
}

/// What a server with these flags serves.
async fn discovered(cluster: &Cluster, flags: &[&str]) -> BTreeMap<(String, String), Shown> {
    let server = cluster.server(flags).await;
    let admin = cluster.client(&server, Some("admin")).with_header("accept", AGGREGATED);
    let mut served = BTreeMap::new();
    for path in ["/api", "/apis"] {
        shown(&admin.get(path).await.expect("discovery").body, &mut served);
    }
    server.finish().await;
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_the_table_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(folder.join("tests/discovery/v1.35.txt")).expect("the list of v1.35");
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<Row> = lines.map(row).collect();

    let cluster = Cluster::new();
    let mut served = discovered(&cluster, &[]).await;
    let mut when_asked = discovered(&cluster, &["--runtime-config=api/beta=true,api/alpha=true"]).await;
    when_asked.retain(|key, _| !served.contains_key(key));

    let mut wrong = Vec::new();
    for row in &rows {
        let name = format!("{} {}", row.group_version, row.plural);
        let key = (row.group_version.clone(), row.plural.clone());
        let found = served.remove(&key);
        match (row.mark.as_str(), found) {
            ("asked", None) => match when_asked.remove(&key) {
                Some(found) if found == row.shown => {}
                found => wrong.push(format!("{name}\n  expected {:?}\n  was      {found:?}", row.shown)),
            },
            ("asked", Some(_)) => wrong.push(format!("{name} is served without being asked for")),
            ("absent", None) => assert!(!row.reason.is_empty(), "{name} is absent without a reason"),
            ("absent", Some(_)) => wrong.push(format!("{name} is served and said to be absent")),
            ("acts" | "stored", Some(found)) if found == row.shown => {}
            ("acts" | "stored", found) => {
                wrong.push(format!("{name}\n  expected {:?}\n  was      {found:?}", row.shown))
            }
            (mark, _) => wrong.push(format!("{name}: no such mark: {mark}")),
        }
        let is_explained = row.absent.is_empty() || !row.reason.is_empty();
        assert!(is_explained, "{name} lacks subresources without a reason");
    }
    wrong.extend(
        served
            .keys()
            .chain(when_asked.keys())
            .map(|(version, plural)| format!("{version} {plural} is served and not of v1.35")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let page = documented(&rows);
    let path = folder.join("../docs/api-table.md");
    if std::env::var_os("UPDATE_API_TABLE").is_some() {
        std::fs::write(&path, &page).expect("writable");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == page, "docs/api-table.md is out of date; run this test with UPDATE_API_TABLE=1");
}
