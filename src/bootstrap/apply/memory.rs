//! What is remembered of a bootstrap, so that one that is killed goes on, and states are not triggered twice.

use ring::digest;
use serde_json::json;

use crate::bootstrap::context::Context;
use crate::bootstrap::state::{Memory, Phase};
use crate::config::settings::Settings;
use crate::minion::jobs;
use crate::minion::paths::MinionPaths;
use crate::salt::settings::Apply;
use crate::system::files;
use crate::types::failure::Failure;
use crate::types::hexadecimal::hexadecimal;
use crate::types::report::States;

/// Did these very states hold after an earlier run on this instance? If so, with which result, as
/// far as its report is still there.
pub fn held_before(context: &Context, apply: &Apply) -> Option<Option<States>> {
    let Context { settings, store, journal, .. } = *context;
    let same = |memory: &Memory| {
        memory.phase == Phase::Held && store.is_here(memory.instance.as_deref()) && memory.asked == digest_of(settings, apply)
    };
    let memory = store.memory().filter(same)?;
    journal.name_bootstrap(&memory.bootstrap_id);
    let states =
        store.report().filter(|report| report.bootstrap_id.as_deref() == Some(&memory.bootstrap_id)).and_then(|report| report.states);
    if let Some(states) = &states {
        journal.note_states(states.clone());
    }
    Some(states)
}

/// The id of this bootstrap of this instance, which goes with everything that the master is asked. It is remembered from now on: a run
/// that is killed goes on under the same.
pub fn bootstrap_id(context: &Context, paths: &MinionPaths) -> Result<String, Failure> {
    let id = match &context.settings.apply {
        Some(apply) => {
            let memory = remembered(context, apply, paths);
            context.store.keep_memory(&memory)?;
            memory.bootstrap_id
        }
        None => context.journal.bootstrap_id().unwrap_or_else(new_uuid),
    };
    context.journal.name_bootstrap(&id);
    Ok(id)
}

/// The memory of this bootstrap of this instance, or a new one.
pub fn remembered(context: &Context, apply: &Apply, paths: &MinionPaths) -> Memory {
    let (instance, asked) = (context.store.instance(), digest_of(context.settings, apply));
    let same = context.store.memory().filter(|memory| context.store.is_here(memory.instance.as_deref()) && memory.asked == asked);
    match same {
        // The states held, and are wanted again: that is another bootstrap.
        Some(memory) if memory.phase != Phase::Held || !context.again => memory,
        _ => Memory {
            schema: 1,
            instance,
            asked,
            bootstrap_id: new_uuid(),
            before: jobs::known(paths),
            phase: Phase::Failed,
            firings: 0,
            tells_id: context.store.memory().and_then(|memory| memory.tells_id),
            boot: None,
            job: None,
        },
    }
}

/// What was asked for, as a digest: the pillar may hold secrets.
fn digest_of(settings: &Settings, apply: &Apply) -> String {
    let asked =
        json!([settings.minion.id.as_str(), settings.minion.masters, apply.hook.as_str(), apply.argument(), apply.matcher, apply.pillar])
            .to_string();
    hexadecimal(digest::digest(&digest::SHA256, asked.as_bytes()).as_ref())
}

fn new_uuid() -> String {
    // random(4): the kernel makes version 4 UUIDs. The fallback is unique enough for one minion.
    files::read_text("/proc/sys/kernel/random/uuid".as_ref(), 64).map(|text| text.trim().to_owned()).unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("{:032x}", now.as_nanos())
    })
}
