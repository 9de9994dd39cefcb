//! [`SharedSecret`]: both sides prove that they know a secret.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{
    auth::{Authenticate, Authenticated, Exchange},
    error::{Error, Result},
};

const CHALLENGE_BYTES: usize = 32;
const CONTEXT: &[u8] = b"highwater-replicate 1";

/// Proves on both sides that the other one knows a secret, without sending it.
///
/// Each side sends 32 random bytes, and then a HMAC-SHA256 over both challenges and its role. So a
/// recorded proof is of no use later, and a proof can't be sent back to its sender.
///
/// The bytes of the log are not encrypted, and an attacker who changes bytes on the way is not
/// detected after the proof. Run it inside TLS, or in a network that you trust.
///
/// ```
/// let secret = highwater_replicate::SharedSecret::new(b"32 random bytes from a secret store");
/// assert_eq!(format!("{secret:?}"), "SharedSecret");
/// ```
#[derive(Clone)]
pub struct SharedSecret {
    secret: Vec<u8>,
}

impl SharedSecret {
    /// Uses this secret. It should have 32 random bytes.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        SharedSecret { secret: secret.as_ref().to_vec() }
    }

    fn proof(&self, is_leader: bool, leader: &[u8], replica: &[u8]) -> Result<Vec<u8>> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret);
        let mut mac = mac.map_err(|error| failed(&error.to_string()))?;
        mac.update(CONTEXT);
        mac.update(&[u8::from(is_leader)]);
        mac.update(leader);
        mac.update(replica);
        Ok(mac.finalize().into_bytes().to_vec())
    }

    async fn check(&self, mut exchange: Exchange<'_>) -> Result<()> {
        let mut own = [0; CHALLENGE_BYTES];
        getrandom::fill(&mut own).map_err(|error| failed(&error.to_string()))?;
        exchange.send(&own).await?;
        let theirs = exchange.receive().await?;
        if theirs.len() != CHALLENGE_BYTES {
            return Err(failed("the challenge has not 32 bytes"));
        }
        let is_leader = exchange.is_leader();
        let (leader, replica) =
            if is_leader { (&own[..], &theirs[..]) } else { (&theirs[..], &own[..]) };
        exchange.send(&self.proof(is_leader, leader, replica)?).await?;
        let proof = exchange.receive().await?;
        let expected = self.proof(!is_leader, leader, replica)?;
        if bool::from(proof.as_ref().ct_eq(&expected)) {
            Ok(())
        } else {
            Err(failed("the other side does not know the secret"))
        }
    }
}

fn failed(reason: &str) -> Error {
    Error::Authentication { reason: reason.to_owned() }
}

impl Authenticate for SharedSecret {
    fn authenticate<'a>(&'a self, exchange: Exchange<'a>) -> Authenticated<'a> {
        Box::pin(self.check(exchange))
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret")
    }
}
