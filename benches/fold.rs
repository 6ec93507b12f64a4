//! The fold alone: changes per second of one core, by how often keys come again and how they are kept.
//!
//! `cargo bench --bench fold`. A million changes in runs of 8,192; keys random below the number given. The MB
//! are those of the keys, which are all that it looks at.

mod bed;

use alluvium::batch::Op;
use alluvium::sinks::delta::fold::{Run, fold};
use alluvium::sinks::delta::keys::{Key, Shape};
use bed::{BATCH, cpu};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const CHANGES: usize = 1_000_000;
const ROUNDS: usize = 5;

fn main() {
    println!(
        "{:>12} {:>8} {:>16} {:>10} {:>12}",
        "keys", "shape", "changes/cpu-s", "MB/cpu-s", "left"
    );
    for (keys, shape) in [1_000, 100_000, 5_000_000]
        .into_iter()
        .flat_map(|keys| [(keys, Shape::Exact), (keys, Shape::Hashed)])
    {
        let mut rng = SmallRng::seed_from_u64(1);
        let second = |key: u64| {
            if shape == Shape::Exact {
                0
            } else {
                key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            }
        };
        let changes: Vec<Key> = (0..CHANGES)
            .map(|_| rng.random_range(0..keys))
            .map(|key| Key([key, second(key)]))
            .collect();
        let ops = vec![Op::Put; CHANGES];
        let runs: Vec<Run<'_>> = changes
            .chunks(BATCH)
            .zip(ops.chunks(BATCH))
            .map(|(keys, ops)| Run { keys, ops })
            .collect();
        let used = cpu();
        let mut left = 0;
        for _ in 0..ROUNDS {
            left = fold(shape, &runs, |_| false).last.iter().map(|bits| bits.count_set_bits()).sum();
        }
        let rate = (CHANGES * ROUNDS) as f64 / (cpu() - used);
        let shape = format!("{shape:?}").to_lowercase();
        println!(
            "{keys:>12} {shape:>8} {rate:>16.0} {:>10.0} {left:>12}",
            rate * size_of::<Key>() as f64 / 1e6
        );
    }
}
