//! What the load generator accepts, and what it does not.

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../../../examples/key_value/load/book.rs"]
mod pages;
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../../../examples/key_value/load/value.rs"]
mod value;

use pages::Book;
use value::Label;

#[test]
fn values_that_nobody_can_have_put_are_noticed() {
    let book = Book::new(2, 100);
    let page = book.page(1);
    let check = |key, known, value: Option<&[u8]>| book.check(&page, key, known, value);
    let (first, old) = book.next(0);
    let (second, new) = book.next(0);
    assert_eq!((first, second), (1, 2));

    assert_eq!(check(0, 0, None), Ok(()));
    assert_eq!(check(0, 1, Some(&old)), Ok(()));
    assert_eq!(check(0, 1, Some(&new)), Ok(()));
    assert_eq!(page.known(0), 2);
    assert!(check(0, 2, Some(&old)).unwrap_err().contains("though PUT 2 was answered"));
    assert!(check(0, 2, None).unwrap_err().contains("is not there"));
    assert!(check(1, 0, Some(&new)).unwrap_err().contains("has a value of key 0"));
    // One byte of another, one byte less, and one that was never put.
    let mut mixed = new.clone();
    mixed[99] ^= 1;
    assert!(check(0, 2, Some(&mixed)).unwrap_err().contains("byte 99 of 100"));
    assert!(check(0, 2, Some(&new[..99])).unwrap_err().contains("99 bytes"));
    assert!(check(0, 2, Some(b"short")).unwrap_err().contains("nobody has put"));
    let label = Label::of(&new).expect("it is whole");
    let future = Label { sequence: 3, ..label }.value(100);
    assert!(check(0, 2, Some(&future)).unwrap_err().contains("never made"));
    let foreign = Label { run: !label.run, ..label }.value(100);
    assert!(check(0, 2, Some(&foreign)).unwrap_err().contains("another run"));
    assert_eq!(check(1, 0, Some(&Label { run: 7, key: 1, sequence: 9 }.value(50))), Ok(()));

    // An open PUT may be carried out later; another start of the server has nothing yet.
    page.leave_open(0);
    assert_eq!(check(0, 2, Some(&old)), Ok(()));
    assert_eq!(book.page(2).known(0), 0);
}
