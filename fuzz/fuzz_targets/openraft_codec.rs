//! The openraft adapter's codec decodes any bytes or refuses them. A decoded value survives
//! encoding and decoding.
#![no_main]

use highwater_openraft::{
    Postcard,
    codec::{Codec, CodecError},
};
use libfuzzer_sys::fuzz_target;
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};

openraft::declare_raft_types!(pub Types: D = String, R = String);

type Of = Postcard;

fn check<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, CodecError>,
    encode: fn(&T, &mut Vec<u8>) -> Result<(), CodecError>,
) {
    let Ok(value) = decode(bytes) else { return };
    let mut encoded = Vec::new();
    encode(&value, &mut encoded).expect("a decoded value can be encoded");
    assert_eq!(decode(&encoded).expect("an encoded value can be decoded"), value);
}

fuzz_target!(|bytes: &[u8]| {
    check::<EntryOf<Types>>(
        bytes,
        <Of as Codec<Types>>::decode_entry,
        <Of as Codec<Types>>::encode_entry,
    );
    check::<VoteOf<Types>>(
        bytes,
        <Of as Codec<Types>>::decode_vote,
        <Of as Codec<Types>>::encode_vote,
    );
    check::<LogIdOf<Types>>(
        bytes,
        <Of as Codec<Types>>::decode_log_id,
        <Of as Codec<Types>>::encode_log_id,
    );
});
