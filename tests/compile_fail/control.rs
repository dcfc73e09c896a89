//~ compiles: what the other programs here do wrong, done right

use masq::{
    metrics::Metrics,
    pii::Pii,
    pipeline::{acknowledge::acknowledge, load::Loaded},
    queue::{Queue, lease::Lease},
};

async fn once<Q: Queue>(queue: &Q, loaded: Loaded, lease: Lease, metrics: &Metrics) {
    let settled = acknowledge(queue, loaded, lease, metrics).await;
    println!("{:?}", settled.tally);
}

fn main() {
    let name = Pii::new(String::from("Ada"));
    println!("{}", name.expose().len());
}
