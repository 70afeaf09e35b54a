//! What happens to an order.

use std::fmt::Write;

use vltava_streams::{Buffer, Emitter, Json, OnFault, Record, Reject, Topology, json, utf8};
use vltava_streams::{JsonFormat, Utf8};

/// The topic that orders come to.
pub(crate) const ORDERS: &str = "orders";
/// Where orders go that are not valid, with the reason in a header.
pub(crate) const INVALID: &str = "orders.invalid";
/// Items go to the topic of this name and their category's.
pub(crate) const ITEMS_PREFIX: &str = "items.";

/// Digits of a card number, and how many of them stay readable.
const CARD_DIGITS: usize = 16;
const CARD_DIGITS_SHOWN: usize = 4;

type Order<'a> = Record<'a, Utf8, JsonFormat>;

/// The topology; see the module of the example.
pub(crate) fn topology() -> Topology {
    // What is no JSON at all fails where it is read, and goes the way of the other invalid orders.
    let app = Topology::new("orders").on_fault(OnFault::DeadLetter(INVALID.to_owned()));
    let (valid, invalid) =
        app.stream(ORDERS, (utf8(), json())).named("orders").try_map(json(), validate);
    invalid.to(INVALID).named("invalid");
    valid
        .named("validate")
        .flat_map((utf8(), json()), split)
        .named("split")
        .to_each(|item, topic| {
            topic.push_str(ITEMS_PREFIX);
            topic.push_str(item.value.get("category").and_then(Json::str).unwrap_or("other"));
        })
        .named("route");
    app
}

/// Lets valid orders through, their card numbers masked.
fn validate(order: Order<'_>, out: &mut Buffer) -> Result<(), Reject> {
    let field = |name: &'static str| {
        order.value.get(name).ok_or_else(|| Reject::new(format!("{name} is missing")))
    };
    let text =
        |name| field(name)?.str().ok_or_else(|| Reject::new(format!("{name} is no plain text")));
    let (id, card, items) = (text("id")?, text("card")?, field("items")?);
    if card.len() != CARD_DIGITS || !card.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Reject::new("card is no card number"));
    }
    if items.items().next().is_none() {
        return Err(Reject::new("there are no items"));
    }
    for item in items.items() {
        check_item(item)?;
    }
    let shown = &card[CARD_DIGITS - CARD_DIGITS_SHOWN..];
    let (stars, items) = ("*".repeat(CARD_DIGITS - CARD_DIGITS_SHOWN), items.text());
    write!(out, r#"{{"id":"{id}","card":"{stars}{shown}","items":{items}}}"#)
        .expect("a buffer takes all");
    Ok(())
}

fn check_item(item: Json<'_>) -> Result<(), Reject> {
    let quantity = item.get("quantity").and_then(Json::as_i64);
    match (quantity, item.get("category").and_then(Json::str)) {
        (Some(1..), Some(_)) => Ok(()),
        (Some(1..), None) => Err(Reject::new("an item has no category")),
        _ => Err(Reject::new("an item has no positive quantity")),
    }
}

/// An item becomes a record of its own, keyed by its order.
fn split(order: Order<'_>, out: &mut Emitter) {
    let Some(items) = order.value.get("items") else { return };
    for item in items.items() {
        out.emit(Some(order.key.as_bytes()), Some(item.text().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use vltava_streams::testing::{TestDriver, TestRecord};
    use vltava_streams::{NODE_HEADER, REASON_HEADER};

    use super::*;

    const ORDER: &str = r#"{"id":"o1","card":"1234567890123456","items":[
        {"sku":"a","quantity":2,"category":"books"},{"sku":"b","quantity":1,"category":"toys"}]}"#;

    #[test]
    fn orders_become_items() {
        let mut driver = TestDriver::new(topology().build().unwrap());
        driver.send(ORDERS, TestRecord::new("o1", ORDER));
        let books = driver.read("items.books");
        assert_eq!(books[0].key_text(), Some("o1"));
        assert_eq!(books[0].value_text(), Some(r#"{"sku":"a","quantity":2,"category":"books"}"#));
        assert_eq!(driver.read("items.toys").len(), 1);
    }

    #[test]
    fn invalid_orders_say_why_and_keep_their_bytes() {
        let mut driver = TestDriver::new(topology().build().unwrap());
        for (order, reason) in [
            (ORDER.replace("1234567890123456", "12"), "card is no card number"),
            (ORDER.replace("\"quantity\":2", "\"quantity\":0"), "an item has no positive quantity"),
            (r#"{"id":"o"}"#.to_owned(), "card is missing"),
            ("{".to_owned(), "json expected: the text is not JSON"),
        ] {
            driver.send(ORDERS, TestRecord::new("o1", &order));
            let [letter] = &driver.read(INVALID)[..] else { panic!("{order} is invalid") };
            assert_eq!(letter.value_text(), Some(order.as_str()));
            assert_eq!(letter.header_text(REASON_HEADER), Some(reason));
            assert!(letter.header_text(NODE_HEADER).is_some());
        }
    }
}
