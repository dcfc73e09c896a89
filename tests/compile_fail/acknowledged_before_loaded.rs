//~ E0308 a batch that was only masked cannot be deleted from the queue

use masq::{
    metrics::Metrics,
    pipeline::acknowledge::acknowledge,
    queue::{Queue, lease::Lease},
    sink::Batch,
};

async fn early<Q: Queue>(queue: &Q, batch: Batch, lease: Lease, metrics: &Metrics) {
    acknowledge(queue, batch, lease, metrics).await;
}

fn main() {}
