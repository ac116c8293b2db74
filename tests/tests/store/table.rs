//! docs/etcd-compatibility.md does not rot: every call of the API and of its services is a row, and whatever is said to work is shown by a test that
//! there is, which runs the program from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;

const TABLE: &str = include_str!("../../../docs/etcd-compatibility.md");

/// The cells of all rows.
fn rows() -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").map(|cell| cell.trim().to_owned()).collect())
    };
    TABLE.lines().filter_map(cells).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tests of a source file. `same!` makes some of lines that say `NAME_alike: SCRIPT;`.
fn tests_of(text: &str) -> Vec<String> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            // Shows nothing, as it is not run.
            is_test = false;
        } else if let Some(name) = function.and_then(|rest| rest.split('(').next()) {
            if std::mem::take(&mut is_test) {
                found.push(name.to_owned());
            }
        } else if let Some((name, _)) = line.split_once(": ").filter(|(name, _)| name.ends_with("_alike")) {
            found.push(name.to_owned());
        }
    }
    found
}

/// All tests of the store, with whether they run programs.
fn tests() -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<(PathBuf, bool)> =
        [("tests/tests", true), ("etcd-lite/tests", true), ("etcd-lite/src", false)]
            .map(|(folder, runs_programs)| (root().join(folder), runs_programs))
            .into();
    while let Some((folder, runs_programs)) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push((path, runs_programs));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                for name in tests_of(&std::fs::read_to_string(&path).expect("a file")) {
                    *found.entry(name).or_insert(false) |= runs_programs;
                }
            }
        }
    }
    found
}

/// The names of tests in a cell.
fn tests_named(cell: &str) -> Vec<&str> {
    let is_name = |text: &&str| {
        text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    cell.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_call_of_the_api_is_a_row() {
    let pool = DescriptorPool::decode(coracle_proto::DESCRIPTORS).expect("descriptors");
    let is_meant =
        |package: &str| ["etcdserverpb", "v3lockpb", "v3electionpb", "grpc.health.v1"].contains(&package);
    let listed: BTreeSet<(String, String)> =
        rows().into_iter().filter(|row| row.len() == 4).map(|row| (row[0].clone(), row[1].clone())).collect();
    let mut count = 0;
    for service in pool.services().filter(|service| is_meant(service.package_name())) {
        for method in service.methods() {
            let row = (service.name().to_owned(), method.name().to_owned());
            assert!(listed.contains(&row), "{row:?} is no row of the table");
            count += 1;
        }
    }
    assert!(count > 45, "{count} calls");
}

#[test]
fn what_works_is_shown_by_a_test_that_runs_it() {
    let tests = tests();
    let mut shown = 0;
    for row in rows()
        .iter()
        .filter(|row| matches!(row.len(), 3 | 4) && !row.last().is_some_and(|cell| cell.starts_with('-')))
    {
        let (state, cell) = (&row[row.len() - 2], &row[row.len() - 1]);
        let named = tests_named(cell);
        for name in &named {
            assert!(tests.contains_key(*name), "{name} of {row:?} is no test");
        }
        let is_claim = ["works", "taken", "`true` alone", "`false` alone", "refused", "VALIDATE"];
        if is_claim.iter().any(|claim| state.starts_with(claim)) {
            assert!(named.iter().any(|name| tests[*name]), "no test from outside shows {row:?}");
            shown += 1;
        }
    }
    assert!(shown > 120, "{shown} rows");
}
