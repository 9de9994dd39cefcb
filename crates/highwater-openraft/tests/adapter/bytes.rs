//! The bytes of the default codec. If this fails with a newer openraft, the encoding of its types
//! has changed: older logs cannot be read, and the codec needs a new number.

use std::collections::{BTreeMap, BTreeSet};

use highwater_openraft::{Codec, Postcard};
use openraft::{BasicNode, EntryPayload, Membership, Vote, type_config::alias::EntryOf};

use crate::{
    medium::{entry, log_id},
    state_machine::Types,
};

type Default = Postcard;

fn check(entry: &EntryOf<Types>, expected: &[u8]) {
    let mut bytes = Vec::new();
    <Default as Codec<Types>>::encode_entry(entry, &mut bytes).unwrap();
    assert_eq!(bytes, expected);
    assert_eq!(&<Default as Codec<Types>>::decode_entry(expected).unwrap(), entry);
    // Neither shorter nor longer bytes are an entry.
    for end in 0..expected.len() {
        assert!(<Default as Codec<Types>>::decode_entry(&expected[..end]).is_err());
    }
    let longer = [expected, &[0]].concat();
    assert!(<Default as Codec<Types>>::decode_entry(&longer).is_err());
}

#[test]
fn codec_number_is_unchanged() {
    assert_eq!(<Postcard as Codec<Types>>::ID, 0x706f_7301_0000_0001);
    assert_eq!(<Postcard<7> as Codec<Types>>::ID, 0x706f_7301_0000_0007);
}

#[test]
fn a_normal_entry() {
    // Term, node, index; the variant; key and value with their lengths.
    check(&entry(3, 300, "x"), b"\x03\x01\xac\x02\x01\x07key 300\x01x");
}

#[test]
fn a_blank_entry() {
    let blank = EntryOf::<Types> { log_id: log_id(3, 2), payload: EntryPayload::Blank };
    check(&blank, &[3, 1, 2, 0]);
}

#[test]
fn a_membership() {
    let nodes = BTreeMap::from([(1, BasicNode::new("a")), (2, BasicNode::new("b"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    let payload = EntryPayload::Membership(membership);
    let entry = EntryOf::<Types> { log_id: log_id(3, 2), payload };
    check(&entry, &[3, 1, 2, 2, 1, 1, 1, 2, 1, 1, b'a', 2, 1, b'b']);
}

#[test]
fn a_vote_and_a_log_id() {
    let mut bytes = Vec::new();
    let vote = Vote::new_committed(5, 2);
    <Default as Codec<Types>>::encode_vote(&vote, &mut bytes).unwrap();
    assert_eq!(bytes, [5, 2, 1]);
    assert_eq!(<Default as Codec<Types>>::decode_vote(&bytes).unwrap(), vote);
    bytes.clear();
    <Default as Codec<Types>>::encode_log_id(&log_id(5, 9), &mut bytes).unwrap();
    assert_eq!(bytes, [5, 1, 9]);
    assert_eq!(<Default as Codec<Types>>::decode_log_id(&bytes).unwrap(), log_id(5, 9));
}
