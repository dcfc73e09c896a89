//~ E0451 only load.rs can say that a message is settled

use masq::pipeline::load::{Loaded, Tally};

fn main() {
    let _ = Loaded { settled: Vec::new(), unsettled: Vec::new(), carried: Vec::new(), tally: Tally::default(), key_replaced: false };
}
