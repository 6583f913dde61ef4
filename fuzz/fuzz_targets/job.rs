//! Job files of the minion's cache, MessagePack.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, within_memory};
use heat_salt_bootstrap::parts::minion::job::{Outcome, read_job, read_outcome};
use heat_salt_bootstrap::parts::minion::msgpack;

fuzz_target!(|data: &[u8]| {
    within_memory(|| {
        let whole = msgpack::read(data).is_some();
        let (job, outcome) = (read_job(data), read_outcome(data));
        assert!(whole || (job.is_none() && outcome.is_none()), "half a file is none");
        if let Some(Outcome::Held(states) | Outcome::Failed(states)) = outcome {
            assert!(states.failed <= states.total && states.changed <= states.total && states.failures.len() <= states.failed);
        }
    });
});
