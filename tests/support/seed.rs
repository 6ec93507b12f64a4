//! Chance that is another in each run, and the same again when it is asked for.

use rand::Rng;

/// `ALLUVIUM_SEED`, or else another number each time. It is printed, and a test that fails shows it.
pub fn seed() -> u64 {
    let seed = match std::env::var("ALLUVIUM_SEED") {
        Ok(text) => text.parse().expect("ALLUVIUM_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("chosen by chance: ALLUVIUM_SEED={seed} does the same again");
    seed
}
