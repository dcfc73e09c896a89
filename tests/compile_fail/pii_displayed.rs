//~ E0277 a plain value has no Display

use masq::pii::Pii;

fn main() {
    println!("{}", Pii::new(String::from("Ada")));
}
