//~ E0382 what is acknowledged is used up

use masq::{
    pipeline::{Surroundings, acknowledge::acknowledge, load::Loaded},
    queue::Queue,
};

async fn twice<Q: Queue>(queue: &Q, loaded: Loaded, surroundings: Surroundings<'_>) {
    acknowledge(queue, loaded, surroundings).await;
    acknowledge(queue, loaded, surroundings).await;
}

fn main() {}
