//! A guard: how often steps 2 and 3 (read, mask, encode) allocate for a message. Counted, so no noise is in it; a test
//! binary of its own, since the counting allocator serves the whole process. What they cost in instructions is counted
//! by benches/instructions.rs.

#[path = "../benches/records/mod.rs"]
mod records;

use records::{ALL_NEW, BATCH, Case, Steps, VAULT_OFF};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// Batches before it is counted, in which buffers that are kept grow to their size.
const WARM: usize = 4;
const COUNTED: usize = 4;

/// For each case, how many allocations a message may take. Counted were 7.01 and 9.12, most of them the text of values and
/// the batch's share of its buffers. More is a new one for every message; fewer should become the bound.
const BOUNDS: [(Case, f64); 2] = [(VAULT_OFF, 7.5), (ALL_NEW, 9.6)];

/// Allocations a message, growth of a buffer included.
fn allocations(case: &Case) -> f64 {
    let mut steps = Steps::new(case);
    let mut count = 0;
    for number in 0..WARM + COUNTED {
        let messages = case.batch(number * BATCH);
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
    for (case, bound) in BOUNDS {
        let allocations = allocations(&case);
        println!("{}: {allocations:.3} allocations a message", case.name);
        assert!(allocations <= bound, "{}: {allocations:.3} allocations a message, more than {bound}", case.name);
    }
}
