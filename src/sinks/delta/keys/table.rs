//! A hash table from keys to row addresses, built to be small: keys and addresses lie in flat arrays, nothing else is kept.
//!
//! Promises: 16 bytes a slot for exact keys, 24 for hashed ones; slots are between 68 and 85 % full once a shard has grown, so an
//! exact key costs at most 24 bytes. The table is cut into shards that grow one at a time and by a quarter, so that growth never
//! needs much more memory than the table itself. Linear probing; a removed key leaves no grave behind.

/// A key as two words: the value itself where it fits in eight bytes (the second word is then 0), else a 128-bit hash of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u64; 2]);

/// How the keys of a table are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The second word of every key is 0 and is not stored.
    Exact,
    Hashed,
}

/// Where a row stands: a file by its number, and the row in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Below `u32::MAX`.
    pub file: u32,
    pub row: u32,
}

impl Address {
    /// Never 0: that is what an empty slot holds.
    fn word(self) -> u64 {
        (u64::from(self.file) + 1) << 32 | u64::from(self.row)
    }

    fn of(word: u64) -> Self {
        Self {
            file: ((word >> 32) - 1) as u32,
            row: word as u32,
        }
    }
}

/// Enough that a growing shard is a small part of the table; few enough that an empty table weighs nothing.
const SHARD_BITS: u32 = 10;
/// How full a shard may get, in 20ths. Above it, searches for keys that are not there get long.
const LOAD_MAX: usize = 17;
const LOAD_PARTS: usize = 20;
/// Slots of a shard that has its first key.
const SLOTS_MIN: usize = 8;
/// Memory is read by lines of this size.
const LINE_BYTES: usize = 64;

/// Keys and their addresses.
#[derive(Debug)]
pub struct KeyTable {
    shards: Shards,
    len: usize,
}

#[derive(Debug)]
enum Shards {
    Exact(Vec<Shard<2>>),
    Hashed(Vec<Shard<3>>),
}

/// Calls the same expression for either shape of shards.
macro_rules! each_shape {
    ($shards:expr, $bound:ident => $body:expr) => {
        match $shards {
            Shards::Exact($bound) => $body,
            Shards::Hashed($bound) => $body,
        }
    };
}

impl KeyTable {
    /// An empty table with room for some `keys`.
    pub fn new(shape: Shape, keys: usize) -> Self {
        // Shards differ by some standard deviations of their share: the room is for three quarters of the slots.
        let slots = if keys == 0 {
            0
        } else {
            keys.div_ceil(1 << SHARD_BITS) * 4 / 3 + SLOTS_MIN
        };
        let shards = match shape {
            Shape::Exact => Shards::Exact((0..1 << SHARD_BITS).map(|_| Shard::new(slots)).collect()),
            Shape::Hashed => Shards::Hashed((0..1 << SHARD_BITS).map(|_| Shard::new(slots)).collect()),
        };
        Self { shards, len: 0 }
    }

    pub fn shape(&self) -> Shape {
        match self.shards {
            Shards::Exact(_) => Shape::Exact,
            Shards::Hashed(_) => Shape::Hashed,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the keys take.
    pub fn memory(&self) -> usize {
        each_shape!(&self.shards, shards => shards.iter().map(|s| size_of_val(s) + size_of_val(s.slots.as_slice())).sum())
    }

    /// Asks memory for the slots of these keys, all at once. Looked for one after the other, each key of a large table would wait for
    /// its own.
    pub fn fetch(&self, keys: impl Iterator<Item = Key>) {
        let slots = each_shape!(&self.shards, shards => keys.fold(0, |words, key| {
            let hash = hash(key);
            words ^ shards[shard_of(hash)].peek(hash)
        }));
        // What the slots hold is of no concern, only that they are read.
        std::hint::black_box(slots);
    }

    pub fn get(&self, key: Key) -> Option<Address> {
        let hash = hash(key);
        each_shape!(&self.shards, shards => shards[shard_of(hash)].get(key, hash))
    }

    /// Sets the address of a key and returns the one that it had.
    pub fn insert(&mut self, key: Key, address: Address) -> Option<Address> {
        let hash = hash(key);
        let before = each_shape!(&mut self.shards, shards => shards[shard_of(hash)].insert(key, hash, address));
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, key: Key) -> Option<Address> {
        let hash = hash(key);
        let before = each_shape!(&mut self.shards, shards => shards[shard_of(hash)].remove(key, hash));
        self.len -= usize::from(before.is_some());
        before
    }

    /// Gives every key another address.
    pub fn readdress(&mut self, address: impl Fn(Address) -> Address) {
        each_shape!(&mut self.shards, shards => shards.iter_mut().for_each(|shard| shard.readdress(&address)));
    }

    /// All keys, shard by shard as any table of this shape holds them: walking one table and asking another is a walk through both.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (Key, Address)> + Send + '_> {
        each_shape!(&self.shards, shards => Box::new(shards.iter().flat_map(Shard::iter)))
    }

    /// The slots of each shard as they lie in memory: for the cache file.
    pub fn raw(&self) -> Box<dyn Iterator<Item = &[u64]> + Send + '_> {
        each_shape!(&self.shards, shards => Box::new(shards.iter().map(|s| s.slots.as_flattened())))
    }

    /// A table from slots as [`KeyTable::raw`] gave them. `fill` is called once a shard, in order, with the words to fill.
    pub fn from_raw<E>(shape: Shape, words: &[usize], mut fill: impl FnMut(&mut [u64]) -> Result<(), E>) -> Result<Self, E> {
        let mut table = Self::new(shape, 0);
        each_shape!(&mut table.shards, shards => {
            for (shard, &words) in shards.iter_mut().zip(words) {
                shard.read(words, &mut fill)?;
                table.len += shard.len;
            }
        });
        Ok(table)
    }
}

/// Like [`KeyTable::iter`], and gives back the memory of each shard behind it.
impl IntoIterator for KeyTable {
    type Item = (Key, Address);
    type IntoIter = Box<dyn Iterator<Item = (Key, Address)> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        each_shape!(self.shards, shards => Box::new(shards.into_iter().flat_map(Shard::into_iter)))
    }
}

/// Spreads keys evenly over 64 bits. A hashed key is spread already, but costs nothing to spread again.
fn hash(key: Key) -> u64 {
    // The finaliser of MurmurHash3: every bit of the key reaches every bit of the hash, and no two exact keys share one.
    let mut h = key.0[0] ^ key.0[1];
    h = (h ^ h >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ h >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ h >> 33
}

fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

/// So many slots, each once, and not in their order, which is that of the hashes: a shard that grows with such keys would have all of them
/// at its beginning, and the search for the place of each would pass all others.
fn scattered(slots: usize) -> impl Iterator<Item = usize> + Send {
    let stride = stride(slots);
    (0..slots).scan(0, move |next, _| {
        let slot = *next;
        *next = (slot + stride) % slots;
        Some(slot)
    })
}

/// Steps of this size come to each of so many slots once, and spread evenly from the first on: near the golden section.
fn stride(slots: usize) -> usize {
    let near = slots * 618 / 1000 + 1;
    (near..).find(|&stride| gcd(stride, slots) == 1).unwrap_or(1)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Slots of `W` words: the key's, then the address, which is 0 where the slot is empty.
#[derive(Debug)]
struct Shard<const W: usize> {
    slots: Vec<[u64; W]>,
    len: usize,
}

impl<const W: usize> Shard<W> {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![[0; W]; slots],
            len: 0,
        }
    }

    /// The slot where a key is looked for first. It rises with the hash, so that growing and walking go through memory in order.
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << SHARD_BITS) * self.slots.len() as u128) >> 64) as usize
    }

    /// What a search for a key is likely to read: full as a shard is, it goes on for some slots, which may lie in the next line of memory.
    fn peek(&self, hash: u64) -> u64 {
        let word = |slot: usize| self.slots.get(slot).map_or(0, |words| words[W - 1]);
        let home = self.home(hash);
        word(home) ^ word(home + LINE_BYTES.div_ceil(size_of::<[u64; W]>()))
    }

    fn next(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    fn holds(&self, slot: usize, key: Key) -> bool {
        let words = &self.slots[slot];
        words[0] == key.0[0] && (W == 2 || words[1] == key.0[1])
    }

    fn key(&self, slot: usize) -> Key {
        let words = &self.slots[slot];
        Key([words[0], if W == 2 { 0 } else { words[1] }])
    }

    /// The slot of a key, or the empty slot where the search for it ended. The shard has at least one empty slot.
    fn find(&self, key: Key, hash: u64) -> Result<usize, usize> {
        let mut slot = self.home(hash);
        loop {
            if self.slots[slot][W - 1] == 0 {
                return Err(slot);
            }
            if self.holds(slot, key) {
                return Ok(slot);
            }
            slot = self.next(slot);
        }
    }

    fn get(&self, key: Key, hash: u64) -> Option<Address> {
        if self.len == 0 {
            return None;
        }
        self.find(key, hash).ok().map(|slot| Address::of(self.slots[slot][W - 1]))
    }

    fn insert(&mut self, key: Key, hash: u64, address: Address) -> Option<Address> {
        if (self.len + 1) * LOAD_PARTS > self.slots.len() * LOAD_MAX {
            self.grow();
        }
        match self.find(key, hash) {
            Ok(slot) => {
                let before = std::mem::replace(&mut self.slots[slot][W - 1], address.word());
                Some(Address::of(before))
            }
            Err(slot) => {
                self.put(slot, key, address.word());
                self.len += 1;
                None
            }
        }
    }

    fn put(&mut self, slot: usize, key: Key, address: u64) {
        let words = &mut self.slots[slot];
        words[..W - 1].copy_from_slice(&key.0[..W - 1]);
        words[W - 1] = address;
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() + self.slots.len() / 4).max(SLOTS_MIN);
        let old = std::mem::replace(self, Self::new(slots));
        self.len = old.len;
        for slot in (0..old.slots.len()).filter(|&slot| old.slots[slot][W - 1] != 0) {
            let key = old.key(slot);
            let (Ok(free) | Err(free)) = self.find(key, hash(key));
            self.put(free, key, old.slots[slot][W - 1]);
        }
    }

    /// Empties the slot and moves up those behind it that are away from home because of it.
    fn remove(&mut self, key: Key, hash_of_key: u64) -> Option<Address> {
        if self.len == 0 {
            return None;
        }
        let mut hole = self.find(key, hash_of_key).ok()?;
        let before = Address::of(self.slots[hole][W - 1]);
        let mut slot = self.next(hole);
        while self.slots[slot][W - 1] != 0 {
            let home = self.home(hash(self.key(slot)));
            if self.distance(home, slot) >= self.distance(hole, slot) {
                self.slots[hole] = self.slots[slot];
                hole = slot;
            }
            slot = self.next(slot);
        }
        self.slots[hole] = [0; W];
        self.len -= 1;
        Some(before)
    }

    /// How many steps a search that starts at `from` takes to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn readdress(&mut self, address: impl Fn(Address) -> Address) {
        for words in self.slots.iter_mut().filter(|words| words[W - 1] != 0) {
            words[W - 1] = address(Address::of(words[W - 1])).word();
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Address)> + Send + '_ {
        scattered(self.slots.len()).filter_map(|slot| self.at(slot))
    }

    fn into_iter(self) -> impl Iterator<Item = (Key, Address)> + Send {
        scattered(self.slots.len()).filter_map(move |slot| self.at(slot))
    }

    fn at(&self, slot: usize) -> Option<(Key, Address)> {
        let word = self.slots[slot][W - 1];
        (word != 0).then(|| (self.key(slot), Address::of(word)))
    }

    fn read<E>(&mut self, words: usize, fill: &mut impl FnMut(&mut [u64]) -> Result<(), E>) -> Result<(), E> {
        self.slots = vec![[0; W]; words / W];
        fill(self.slots.as_flattened_mut())?;
        self.len = self.slots.iter().filter(|slot| slot[W - 1] != 0).count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(shape: Shape, number: u64) -> Key {
        match shape {
            Shape::Exact => Key([number, 0]),
            // Many keys with an equal first word: the second has to tell them apart.
            Shape::Hashed => Key([number / 7, number]),
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(changes in prop::collection::vec((0..3u8, 0..500u64, any::<u32>()), 0..3000), hashed: bool) {
            let shape = if hashed { Shape::Hashed } else { Shape::Exact };
            let mut table = KeyTable::new(shape, 0);
            let mut model = HashMap::new();
            for (change, number, row) in changes {
                let (key, address) = (key(shape, number), Address { file: row % 9, row });
                match change {
                    0 | 1 => prop_assert_eq!(table.insert(key, address), model.insert(key, address)),
                    _ => prop_assert_eq!(table.remove(key), model.remove(&key)),
                }
            }
            prop_assert_eq!(table.len(), model.len());
            for number in 0..500 {
                prop_assert_eq!(table.get(key(shape, number)), model.get(&key(shape, number)).copied());
            }
            prop_assert_eq!(table.iter().collect::<HashMap<_, _>>(), model.clone());
            prop_assert_eq!(table.into_iter().collect::<HashMap<_, _>>(), model);
        }

        /// All in one shard, which is up to 85 % full: searches run over other keys and over the end of the shard.
        #[test]
        fn a_crowded_shard_is_a_map(changes in prop::collection::vec((0..5u8, 0..300u64, any::<u32>()), 0..2000)) {
            let mut shard = Shard::<3>::new(0);
            let mut model = HashMap::new();
            for (change, number, row) in changes {
                let (key, address) = (key(Shape::Hashed, number), Address { file: row % 9, row });
                match change {
                    0..=2 => prop_assert_eq!(shard.insert(key, hash(key), address), model.insert(key, address)),
                    _ => prop_assert_eq!(shard.remove(key, hash(key)), model.remove(&key)),
                }
                prop_assert_eq!(shard.len, model.len());
            }
            for number in 0..300 {
                let key = key(Shape::Hashed, number);
                prop_assert_eq!(shard.get(key, hash(key)), model.get(&key).copied());
            }
            prop_assert_eq!(shard.iter().collect::<HashMap<_, _>>(), model);
        }
    }

    #[test]
    fn an_exact_key_takes_at_most_24_bytes() {
        let mut table = KeyTable::new(Shape::Exact, 0);
        for number in 0..1_500_000u64 {
            table.insert(
                Key([number, 0]),
                Address {
                    file: 1,
                    row: number as u32,
                },
            );
            if number > 200_000 && number.is_multiple_of(4_999) {
                let bytes = table.memory() as f64 / table.len() as f64;
                assert!(bytes <= 24.0, "{bytes:.2} bytes a key at {number} keys");
            }
        }
        let planned = KeyTable::new(Shape::Exact, 1_500_000);
        assert!(
            planned.memory() <= 1_500_000 * 24,
            "a table with room takes {} bytes",
            planned.memory()
        );
    }

    #[test]
    fn raw_slots_make_the_same_table() {
        let mut table = KeyTable::new(Shape::Hashed, 100);
        for number in 0..10_000 {
            table.insert(
                key(Shape::Hashed, number),
                Address {
                    file: 3,
                    row: number as u32,
                },
            );
        }
        let raw: Vec<Vec<u64>> = table.raw().map(<[u64]>::to_vec).collect();
        let words: Vec<usize> = raw.iter().map(Vec::len).collect();
        let mut shards = raw.iter();
        let again = KeyTable::from_raw::<()>(Shape::Hashed, &words, |slots| {
            slots.copy_from_slice(shards.next().ok_or(())?);
            Ok(())
        });
        let again = again.expect("as many shards as were given");
        assert_eq!(again.len(), table.len());
        assert!(table.iter().eq(again.iter()));
    }

    #[test]
    fn all_slots_are_walked_through_once() {
        for slots in [1, 2, 7, 8, 10, 1000, 4096] {
            let stride = stride(slots);
            let walked: std::collections::BTreeSet<usize> = (0..slots).map(|step| step * stride % slots).collect();
            assert_eq!(walked.len(), slots);
        }
    }

    /// With the keys in the order of their hashes this takes some 10^11 steps.
    #[test]
    fn a_shard_that_grows_with_the_keys_of_another_is_not_searched_from_end_to_end() {
        let (mut one, mut other) = (Shard::<2>::new(0), Shard::<2>::new(0));
        for number in 0..500_000 {
            let key = Key([number, 0]);
            one.insert(key, hash(key), Address { file: 0, row: 0 });
        }
        for (key, at) in one.iter() {
            other.insert(key, hash(key), at);
        }
        assert_eq!(other.len, 500_000);
    }
}
