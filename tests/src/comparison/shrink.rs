//! Finds few operations of a run that still show a difference, by running fewer and fewer against new servers.

use std::time::{Duration, Instant};

use super::run::{Difference, run};
use crate::store::Program;

/// Runs that are tried; each starts two servers.
const TRIES_MAX: usize = 60;
/// No run is begun after this.
const WITHIN: Duration = Duration::from_secs(120);

/// The operations that are left of `numbers`, whose run shows a difference, and the difference that they show.
pub async fn shrink(
    seed: u64,
    numbers: &[u64],
    reference: Program,
    found: Box<Difference>,
) -> (Vec<u64>, Box<Difference>) {
    let end = Instant::now() + WITHIN;
    let mut left: Vec<u64> = numbers.iter().copied().filter(|number| *number <= found.number).collect();
    let mut found = found;
    let mut tries = 0;
    let mut piece = left.len() / 2;
    while piece > 0 {
        let mut begin = 0;
        // The last one shows it.
        while begin + 1 < left.len() {
            if tries == TRIES_MAX || Instant::now() > end {
                return (left, found);
            }
            tries += 1;
            let stop = (begin + piece).min(left.len() - 1);
            let fewer = [&left[..begin], &left[stop..]].concat();
            match run(seed, &fewer, reference).await {
                Err(still) => {
                    left = fewer;
                    left.retain(|number| *number <= still.number);
                    found = still;
                }
                Ok(_) => begin = stop,
            }
        }
        piece = piece.min(left.len()) / 2;
    }
    (left, found)
}
