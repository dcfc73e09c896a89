//~ compiles: what the other programs here do wrong, done right

use masq::{
    pii::Pii,
    pipeline::{Surroundings, acknowledge::acknowledge, load::Loaded},
    queue::Queue,
};

async fn once<Q: Queue>(queue: &Q, loaded: Loaded, surroundings: Surroundings<'_>) {
    println!("{:?}", loaded.tally());
    acknowledge(queue, loaded, surroundings).await;
}

fn main() {
    let name = Pii::new(String::from("Ada"));
    println!("{}", name.expose().len());
}
