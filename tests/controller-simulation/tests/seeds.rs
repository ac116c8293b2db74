//! Some seeds in every run of the tests; `make sim-controllers` runs more.

#[test]
fn seeds_break_no_promise_and_come_to_rest() {
    let mut changes = 0;
    for seed in 0..10 {
        let finished = controller_simulation::run(seed, false);
        changes += finished.stats.changes;
        if let Some(violation) = finished.violation {
            panic!(
                "seed {seed}: {violation}\nreplay it with: cargo run -p controller-simulation -- replay --verbose --seed {seed}"
            );
        }
    }
    assert!(changes > 10 * 50, "something happened: {changes} changes");
}

#[test]
fn preemption_spares_what_budgets_protect() {
    for seed in 0..200 {
        let wrong = controller_simulation::preemption::run(seed).expect("objects");
        assert!(wrong.is_none(), "seed {seed}: {wrong:?}");
    }
}
