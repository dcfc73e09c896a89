//! A guard: how often steps 2 and 3 (read, mask, encode) allocate for a message. Counted, so no noise is in it; a test
//! binary of its own, since the counting allocator serves the whole process. What they cost in instructions is counted
//! by benches/instructions.rs.

#[path = "../benches/records/mod.rs"]
mod records;

use records::{BATCH, Steps, VAULT_OFF, VAULT_ON, batch};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Batches before it is counted, in which buffers that are kept grow to their size.
const WARM: usize = 4;
const COUNTED: usize = 4;

/// How many allocations a message may take. Counted were 4.01 without the vault and 6.12 with it: a document's nodes, an
/// event's values, the day of sending, and the batch's share of its buffers. One more for every message is beyond it; where there are fewer, the bound
/// should follow.
const BOUNDS: [(&str, &str, f64); 2] = [("vault off", VAULT_OFF, 4.5), ("vault on", VAULT_ON, 6.6)];

/// Allocations a message, growth of a buffer included.
fn allocations(config: &str) -> f64 {
    let mut steps = Steps::new(config);
    let mut count = 0;
    for number in 0..WARM + COUNTED {
        let messages = batch(number * BATCH);
        let before = dhat::HeapStats::get().total_blocks;
        let batch = steps.settle(messages);
        if number >= WARM {
            count += dhat::HeapStats::get().total_blocks - before;
        }
        drop(batch);
    }
    count as f64 / (COUNTED * BATCH) as f64
}

#[test]
fn a_message_is_masked_in_few_allocations() {
    let _counting = dhat::Profiler::builder().testing().build();
    for (name, config, bound) in BOUNDS {
        let allocations = allocations(config);
        println!("{name}: {allocations:.3} allocations a message");
        assert!(allocations <= bound, "{name}: {allocations:.3} allocations a message, more than {bound}");
    }
}
