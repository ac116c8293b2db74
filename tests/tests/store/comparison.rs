//! The same random operations to etcd and to etcd-lite have the same answers. `SEED=n` chooses others, `OPERATIONS=n` makes it longer, and
//! `ONLY=3,17` runs just these of it; `make compare-store` does it with the release build.

use std::env;

use coracle_tests::comparison::run::{Summary, run};
use coracle_tests::comparison::shrink::shrink;
use coracle_tests::store::Program;

/// Operations unless `OPERATIONS` says otherwise.
const OPERATIONS: u64 = 3_000;
/// From so many on, every kind of operation is sure to have been answered and to have been refused.
const ENOUGH: usize = 2_000;

/// Kinds that are both answered and refused; of the others no request is wrong.
const REFUSED_TOO: [&str; 8] =
    ["Range", "Put", "DeleteRange", "Txn", "Compact", "LeaseGrant", "LeaseRevoke", "HashKV"];
const ALWAYS_ANSWERED: [&str; 6] =
    ["BriefLease", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases", "Status", "Watch"];

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

async fn compare(reference: Program, test: &str) {
    let seed = number("SEED").unwrap_or(1);
    let count = number("OPERATIONS").unwrap_or(OPERATIONS);
    println!("SEED={seed} OPERATIONS={count}");
    let numbers: Vec<u64> = match env::var("ONLY") {
        Ok(only) => {
            only.split(',').map(|n| n.parse().expect("ONLY is numbers with commas between")).collect()
        }
        Err(_) => (1..=count).collect(),
    };
    match run(seed, &numbers, reference).await {
        Ok(summary) => {
            println!("{summary:#?}");
            if numbers.len() >= ENOUGH {
                check_everything_happened(&summary);
            }
        }
        Err(found) => {
            println!("a difference:\n{found}\nlooking for fewer operations that show one");
            let (left, found) = shrink(seed, &numbers, reference, found).await;
            let only: Vec<String> = left.iter().map(u64::to_string).collect();
            panic!(
                "etcd-lite differs from {reference:?} after {} operations:\n{found}\nRun again: \
                 SEED={seed} ONLY={} cargo nextest run -p coracle-tests --no-capture {test}",
                left.len(),
                only.join(",")
            );
        }
    }
}

fn check_everything_happened(summary: &Summary) {
    for kind in REFUSED_TOO.iter().chain(&ALWAYS_ANSWERED) {
        let (answered, refused) = summary.operations.get(kind).copied().unwrap_or_default();
        assert!(answered > 0, "no {kind} was answered");
        assert!(refused > 0 || !REFUSED_TOO.contains(kind), "no {kind} was refused");
    }
    assert!(summary.events > 0, "no watch was told anything");
    assert!(summary.ended_watches > 0, "no watch was ended by a compaction");
}

#[tokio::test]
async fn operations_are_answered_as_by_etcd_3_5() {
    compare(Program::Etcd35, "operations_are_answered_as_by_etcd_3_5").await;
}

#[tokio::test]
async fn operations_are_answered_as_by_etcd_3_4() {
    compare(Program::Etcd34, "operations_are_answered_as_by_etcd_3_4").await;
}
