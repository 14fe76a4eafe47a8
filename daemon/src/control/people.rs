//! What people do with named identities, beside making and showing them: out of this daemon, into it, another name, the end.

use std::sync::{Arc, PoisonError};

use phantom_ipc::admin::{Address, Failure, Passphrase};
use tokio::task::spawn_blocking;

use super::Control;
use super::admin::{address_of, failure, no_such_name};
use crate::identity::sealed::{self, SealedError, Unsealed};
use crate::identity::{ApIdentity, IdentityError, Whose};
use crate::random::system_rng;

impl Control {
    /// The identity, sealed. Takes memory and a second, so one at a time does.
    pub(super) async fn export(&self, whose: Whose, name: &str, passphrase: Passphrase) -> Result<String, Failure> {
        let identity = self.identities.find(whose, name).ok_or_else(no_such_name)?;
        let mut rng = system_rng().map_err(|error| failure(error.to_string(), "see the daemon's log"))?;
        let _one = self.only_one_for(whose)?;
        let _turn = self.sealing.lock().await;
        let sealed = spawn_blocking(move || sealed::seal(&identity, passphrase.as_str(), &mut rng)).await;
        sealed.map_err(|error| failure(error.to_string(), "see the daemon's log"))?.map_err(not_unsealed)
    }

    pub(super) async fn import(
        &self,
        whose: Whose,
        text: String,
        passphrase: Passphrase,
        name: Option<String>,
    ) -> Result<Address, Failure> {
        let unsealed = {
            let _one = self.only_one_for(whose)?;
            let _turn = self.sealing.lock().await;
            spawn_blocking(move || sealed::unseal(&text, passphrase.as_str())).await
        };
        let unsealed = unsealed.map_err(|error| failure(error.to_string(), "see the daemon's log"))?;
        let Unsealed { name: exported, key } = unsealed.map_err(not_unsealed)?;
        let name = name.unwrap_or_else(|| exported.to_string());
        let identity = self.identities.import(whose, &name, key).map_err(refused)?;
        self.daemon.created(Arc::clone(&identity)).await;
        Ok(address_of(&identity))
    }

    pub(super) async fn rename(&self, whose: Whose, name: &str, to: &str) -> Result<Address, Failure> {
        self.idle(whose, name).await?;
        let identity = self.identities.rename(whose, name, to).map_err(refused)?;
        self.daemon.created(Arc::clone(&identity)).await;
        Ok(address_of(&identity))
    }

    pub(super) async fn remove(&self, whose: Whose, name: &str) -> Result<Address, Failure> {
        self.idle(whose, name).await?;
        let identity = self.identities.remove(whose, name).map_err(refused)?;
        self.daemon.removed(identity.address()).await;
        Ok(address_of(&identity))
    }

    /// The identity of that name, if neither a program nor a service uses it.
    async fn idle(&self, whose: Whose, name: &str) -> Result<Arc<ApIdentity>, Failure> {
        let identity = self.identities.find(whose, name).ok_or_else(no_such_name)?;
        if self.spaces.is_open(whose, name) || self.daemon.uses(identity.address()).await {
            let hint = "end the programs that run as it or publish at it, and take back what `phantom forward` offers there; \
                        it is free when they have ended, or a minute later";
            return Err(failure("this identity is in use", hint));
        }
        Ok(identity)
    }

    /// Keeps an ordinary user to one such request at a time, until it is dropped.
    fn only_one_for(&self, whose: Whose) -> Result<Sealing<'_>, Failure> {
        let is_user = whose != Whose::Operator;
        if is_user && !self.sealing_for.lock().unwrap_or_else(PoisonError::into_inner).insert(whose) {
            return Err(failure("another export or import of yours is under way", "try again when it is through"));
        }
        Ok(Sealing(self, whose))
    }
}

/// A request of theirs that seals or opens.
struct Sealing<'a>(&'a Control, Whose);

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        self.0.sealing_for.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

fn not_unsealed(error: SealedError) -> Failure {
    let hint = match error {
        SealedError::Form => "`phantom identity export` writes such files",
        SealedError::Version => "use that release, or a later one",
        SealedError::Cost => "whoever made it means no good",
        SealedError::Passphrase => "try again; nothing was changed",
        SealedError::Short => "a few words do; nothing was written",
    };
    failure(error.to_string(), hint)
}

/// Why an identity is not kept, and what to do.
pub(super) fn refused(error: IdentityError) -> Failure {
    let hint = match &error {
        IdentityError::Name(_) => "choose another name",
        IdentityError::Exists => "`phantom identity list` shows them; give another name",
        IdentityError::Present(_) => "`phantom identity rename` gives it another name",
        IdentityError::Unknown => return no_such_name(),
        IdentityError::Elsewhere => "an identity runs in one place only: whoever has it here must remove it first",
        IdentityError::Full(_) => "use the ones that are there, or remove some (`phantom identity remove`)",
        IdentityError::Store(why) => why.hint(),
        IdentityError::Damaged => "look at the disk and at the daemon's log",
    };
    failure(error.to_string(), hint)
}
