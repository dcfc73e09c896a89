//~ E0308 a batch that was only masked cannot be deleted from the queue

use masq::{
    pipeline::{Surroundings, acknowledge::acknowledge},
    queue::Queue,
    sink::Batch,
};

async fn early<Q: Queue>(queue: &Q, batch: Batch, surroundings: Surroundings<'_>) {
    acknowledge(queue, batch, surroundings).await;
}

fn main() {}
