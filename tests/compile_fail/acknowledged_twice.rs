//~ E0382 what is acknowledged is used up

use masq::{
    metrics::Metrics,
    pipeline::{acknowledge::acknowledge, load::Loaded},
    queue::{Queue, lease::Lease},
};

async fn twice<Q: Queue>(queue: &Q, loaded: Loaded, leases: [Lease; 2], metrics: &Metrics) {
    let [first, second] = leases;
    acknowledge(queue, loaded, first, metrics).await;
    acknowledge(queue, loaded, second, metrics).await;
}

fn main() {}
