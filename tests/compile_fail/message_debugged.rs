//~ E0277 a message cannot end up in a log whole

use masq::queue::Message;

fn log(message: &Message) {
    println!("{message:?}");
}

fn main() {}
