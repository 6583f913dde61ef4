//! The protocol of enrol, apply and report as a small model, looked at in every order of what may happen: requests that come late or twice,
//! answers that are lost, an agent, a service or a bootstrap that ends at any moment. What must never be is asked in each state; and the
//! same model with a flaw in it has to be caught.
//!
//! What the service decides stands here once more, in a few lines. `salt-extension/tests/test_schedules.py` holds the real service to it:
//! this test writes down a walk along each step that the model's service can take, and there each of them is taken by the real one.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use serde_json::{Value, json};

/// Two VMs, which may have one name; each has a key of its own, and both have the same token.
const MACHINES: usize = 2;
type Machine = usize;
/// What there is to quarrel about: an id that both have, or a use of the token that only one can have.
#[derive(Clone, Copy, Debug)]
struct Scene {
    same_id: bool,
    uses: u8,
}

const SCENES: [Scene; 2] = [Scene { same_id: true, uses: 2 }, Scene { same_id: false, uses: 1 }];

/// Tells a claim, or a job, from another one of the same machine.
type Number = u8;

/// What may be wrong with the protocol, to see that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// The service places a key before it has written down that a use is gone.
    PlacesFirst,
    /// The service takes a name that was asked for before for a new job.
    ForgetsJobs,
    /// The service notes a publication only once the job is published.
    PublishesFirst,
    /// The service counts a use at each claim.
    CountsEachClaim,
    /// The agent remembers the name of its job only when it has the answer.
    NamesJobLate,
    /// The agent takes a published job for one whose states hold.
    BelievesPublished,
    /// The agent tells Heat again after it has told it.
    ForgetsThatItHasTold,
}

// --- the service

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Verb {
    Enroll,
    Apply { job: Number, again: bool },
    Report { held: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Claim {
    machine: Machine,
    nonce: Number,
    verb: Verb,
}

/// How far the service comes with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Fate {
    /// It is killed before anything is written.
    Nothing,
    /// What is decided is written down, in one transaction, and not carried out: no key is placed, no job published.
    Written,
    /// It is carried out as well, and that is not written down.
    Carried,
    /// Answered.
    Whole,
}

impl Fate {
    const ALL: [Fate; 4] = [Fate::Nothing, Fate::Written, Fate::Carried, Fate::Whole];

    fn name(self) -> &'static str {
        match self {
            Fate::Nothing => "nothing",
            Fate::Written => "written",
            Fate::Carried => "carried",
            Fate::Whole => "whole",
        }
    }
}

/// As PROTOCOL.md words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Accepted,
    Already,
    Job { jid: Number, published: bool },
    Noted,
    UsedUp,
    KeyConflict,
    NotEnrolled,
    Replayed,
}

impl Answer {
    fn word(self) -> &'static str {
        match self {
            Answer::Accepted => "accepted",
            Answer::Already => "already",
            Answer::Job { published: true, .. } => "published",
            Answer::Job { published: false, .. } => "known",
            Answer::Noted => "noted",
            Answer::UsedUp => "403 token-used-up",
            Answer::KeyConflict => "409 key-conflict",
            Answer::NotEnrolled => "403 not-enrolled",
            Answer::Replayed => "409 replayed",
        }
    }
}

/// What the service and the master hold. Claims under one id wait for each other, and what is decided is one transaction; so a claim is
/// one step here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Service {
    /// Of each machine: the id that it goes by.
    ids: [usize; MACHINES],
    uses: u8,
    uses_left: u8,
    /// Who was let in under an id.
    record: [Option<Machine>; MACHINES],
    /// Whose key was noted as placed under an id.
    placed: [Option<Machine>; MACHINES],
    /// Whose key the master accepts under an id.
    accepted: [Option<Machine>; MACHINES],
    /// Who has a line in the audit that lets it in.
    audit: BTreeSet<Machine>,
    /// By whom, and by which name, a job was asked for. Its jid is its place here.
    jobs: Vec<(Machine, Number)>,
    /// For which minion the master was told to publish which jid.
    published: Vec<(Machine, Number)>,
    /// Claims whose nonce is remembered.
    remembered: Vec<(Machine, Number)>,
    reports: [Option<bool>; MACHINES],
}

impl Service {
    fn new(scene: Scene) -> Service {
        Service {
            ids: if scene.same_id { [0, 0] } else { [0, 1] },
            uses: scene.uses,
            uses_left: scene.uses,
            record: [None; MACHINES],
            placed: [None; MACHINES],
            accepted: [None; MACHINES],
            audit: BTreeSet::new(),
            jobs: Vec::new(),
            published: Vec::new(),
            remembered: Vec::new(),
            reports: [None; MACHINES],
        }
    }

    /// What comes of a claim; `None` where the service is killed.
    fn ask(&mut self, claim: Claim, fate: Fate, flaw: Flaw) -> Option<Answer> {
        if fate == Fate::Nothing && flaw != Flaw::PlacesFirst && flaw != Flaw::PublishesFirst {
            return None;
        }
        let answer = match claim.verb {
            Verb::Enroll => self.enroll(claim, fate, flaw),
            Verb::Apply { job, again } => self.apply(claim, (claim.machine, job), again, fate, flaw),
            Verb::Report { held } => self.report(claim, held),
        };
        (fate == Fate::Whole).then_some(answer)
    }

    fn enroll(&mut self, claim: Claim, fate: Fate, flaw: Flaw) -> Answer {
        let (machine, id) = (claim.machine, self.ids[claim.machine]);
        let ours = self.record[id] == Some(machine);
        let is_new = self.is_new(claim);
        if ours && self.accepted[id] == Some(machine) {
            if flaw == Flaw::CountsEachClaim && is_new {
                if self.uses_left == 0 {
                    return Answer::UsedUp;
                }
                self.uses_left -= 1;
            }
            self.remember(claim);
            self.placed[id] = Some(machine);
            return Answer::Already;
        }
        let granted = ours && self.placed[id] != Some(machine);
        if !granted && self.uses_left == 0 {
            return Answer::UsedUp;
        }
        let of_another = |held: Option<Machine>| held.is_some_and(|held| held != machine);
        if of_another(self.accepted[id]) || (of_another(self.record[id]) && self.record[id] != self.placed[id]) {
            return Answer::KeyConflict;
        }
        if !is_new && !granted {
            return Answer::Replayed;
        }
        if fate == Fate::Nothing {
            // Only with a flaw does it come so far.
            if flaw == Flaw::PlacesFirst {
                self.accepted[id] = Some(machine);
            }
            return Answer::Accepted;
        }
        self.remember(claim);
        if !granted {
            self.uses_left -= 1;
            self.record[id] = Some(machine);
        }
        self.audit.insert(machine);
        if fate >= Fate::Carried {
            self.accepted[id] = Some(machine);
        }
        if fate == Fate::Whole {
            self.placed[id] = Some(machine);
        }
        Answer::Accepted
    }

    fn apply(&mut self, claim: Claim, job: (Machine, Number), again: bool, fate: Fate, flaw: Flaw) -> Answer {
        let (machine, id) = (claim.machine, self.ids[claim.machine]);
        if self.record[id] != Some(machine) || self.accepted[id] != Some(machine) {
            return Answer::NotEnrolled;
        }
        let known = self.jobs.iter().position(|one| *one == job).filter(|_| flaw != Flaw::ForgetsJobs);
        let jid = known.unwrap_or(self.jobs.len()) as Number;
        let is_new = self.is_new(claim);
        if known.is_none() && !is_new {
            return Answer::Replayed;
        }
        if fate == Fate::Nothing {
            // Only with a flaw does it come so far.
            if flaw == Flaw::PublishesFirst && known.is_none() {
                self.published.push((machine, jid));
            }
            return Answer::Job { jid, published: true };
        }
        self.remember(claim);
        if known.is_some() && (!is_new || !again) {
            return Answer::Job { jid, published: false };
        }
        if known.is_none() {
            self.jobs.push(job);
        }
        if fate >= Fate::Carried {
            self.published.push((machine, jid));
        }
        Answer::Job { jid, published: true }
    }

    fn report(&mut self, claim: Claim, held: bool) -> Answer {
        if self.record[self.ids[claim.machine]] != Some(claim.machine) {
            return Answer::NotEnrolled;
        }
        if self.is_new(claim) {
            self.remember(claim);
            self.reports[claim.machine] = Some(held);
        }
        Answer::Noted
    }

    fn is_new(&self, claim: Claim) -> bool {
        !self.remembered.contains(&(claim.machine, claim.nonce))
    }

    fn remember(&mut self, claim: Claim) {
        if self.is_new(claim) {
            self.remembered.push((claim.machine, claim.nonce));
            self.remembered.sort_unstable();
        }
    }

    /// What must never be.
    fn wrong(&self) -> Option<&'static str> {
        if self.audit.len() + usize::from(self.uses_left) > usize::from(self.uses) {
            return Some("a use is gained");
        }
        if self.accepted.iter().flatten().any(|machine| !self.audit.contains(machine)) {
            return Some("a key without a line in the audit");
        }
        if self.published.iter().any(|(_, jid)| usize::from(*jid) >= self.jobs.len()) {
            return Some("a job was published that is not written down");
        }
        None
    }
}

// --- agents, minions and Heat

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Enroll,
    Apply { again: bool },
    Watch(Number),
    Report { held: bool },
    Tell { held: bool },
    Over,
}

/// An agent's run, and what survives it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Agent {
    at: At,
    /// The claim whose answer it waits for.
    waits: Option<Claim>,
    nonces: Number,
    names: Number,
    // On disk.
    job: Option<Number>,
    held: bool,
    told: bool,
}

/// What the minion makes of a job that has reached it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Run {
    UnderWay,
    Held,
    Failed,
}

/// How often what may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Faults {
    /// A request that comes late, an answer or a job that is lost, a service that is killed.
    lost: u8,
    /// An agent that is killed, or at its deadline.
    ended: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    service: Service,
    agents: [Agent; MACHINES],
    /// Claims on their way.
    flight: Vec<Claim>,
    /// Jobs on their way to a minion: how many of those that were published have reached it, or were lost.
    arrived: usize,
    /// By the number of the job. A minion knows a job that it has got.
    runs: [BTreeMap<Number, Run>; MACHINES],
    heat: [Vec<bool>; MACHINES],
    /// Agents that were at their deadline.
    late: [bool; MACHINES],
    faults: Faults,
}

impl World {
    fn new(scene: Scene, faults: Faults) -> World {
        let agent = Agent { at: At::Enroll, waits: None, nonces: 0, names: 0, job: None, held: false, told: false };
        World {
            service: Service::new(scene),
            agents: [agent.clone(), agent],
            flight: Vec::new(),
            arrived: 0,
            runs: [BTreeMap::new(), BTreeMap::new()],
            heat: [Vec::new(), Vec::new()],
            late: [false; MACHINES],
            faults,
        }
    }

    fn with(&self, change: impl FnOnce(&mut World)) -> World {
        let mut next = self.clone();
        change(&mut next);
        next.flight.sort_unstable();
        next
    }

    /// Every state that may come next, and what happens on the way.
    fn next(&self, flaw: Flaw, all: &mut Steps) {
        for (number, claim) in self.flight.iter().enumerate() {
            for fate in Fate::ALL {
                self.served(number, *claim, fate, flaw, all);
            }
        }
        for machine in 0..MACHINES {
            self.moved(machine, flaw, all);
            self.ended(machine, all);
        }
        if let Some(&(machine, job)) = self.service.published.get(self.arrived) {
            // Only a minion whose key is accepted is connected.
            if self.service.accepted[self.service.ids[machine]] == Some(machine) {
                let arrives = |world: &mut World| {
                    world.arrived += 1;
                    world.runs[machine].entry(job).or_insert(Run::UnderWay);
                };
                all.add(|| format!("job {job} reaches {machine}"), self.with(arrives));
            }
            if self.faults.lost > 0 {
                let lost = |world: &mut World| {
                    world.arrived += 1;
                    world.faults.lost -= 1;
                };
                all.add(|| format!("job {job} is lost on its way to {machine}"), self.with(lost));
            }
        }
    }

    /// The service takes a claim.
    fn served(&self, number: usize, claim: Claim, fate: Fate, flaw: Flaw, all: &mut Steps) {
        let mut next = self.clone();
        next.flight.remove(number);
        let answer = next.service.ask(claim, fate, flaw);
        let Some(answer) = answer else {
            if self.faults.lost > 0 {
                next.faults.lost -= 1;
                all.add(|| format!("{claim:?}: the service is killed, {}", fate.name()), next);
            }
            return;
        };
        let awaited = next.agents[claim.machine].waits == Some(claim);
        if awaited && self.faults.lost > 0 {
            all.add(|| format!("{claim:?}: {}, and nobody hears it", answer.word()), next.with(|world| world.faults.lost -= 1));
        }
        if awaited {
            next.agents[claim.machine].hears(claim, answer, flaw);
        }
        all.add(|| format!("{claim:?}: {}", answer.word()), next);
    }

    /// What an agent, or its minion, does by itself.
    fn moved(&self, machine: Machine, flaw: Flaw, all: &mut Steps) {
        let agent = &self.agents[machine];
        if let Some(claim) = agent.waits {
            let on_its_way = self.flight.contains(&claim);
            if !on_its_way || self.faults.lost > 0 {
                let gives_up = |world: &mut World| {
                    world.faults.lost -= u8::from(on_its_way);
                    let agent = &mut world.agents[machine];
                    agent.waits = None;
                    // Nothing hangs on whether the service knows how it ended.
                    if let At::Report { held } = agent.at {
                        agent.at = At::Tell { held };
                    }
                };
                all.add(|| format!("{machine} asks no longer for {claim:?}"), self.with(gives_up));
            }
        } else {
            match agent.at {
                At::Enroll | At::Apply { .. } | At::Report { .. } => {
                    let asks = |world: &mut World| {
                        let claim = world.agents[machine].claim(machine, flaw);
                        world.flight.push(claim);
                    };
                    all.add(|| format!("{machine} asks"), self.with(asks));
                }
                At::Watch(job) => match self.runs[machine].get(&job) {
                    Some(Run::UnderWay) => {}
                    Some(run) => {
                        let held = *run == Run::Held;
                        all.add(|| format!("{machine} sees how job {job} ended"), self.with(|world| world.agents[machine].knows(held)));
                    }
                    None if self.arrived == self.service.published.len() => {
                        let again = |world: &mut World| world.agents[machine].at = At::Apply { again: true };
                        all.add(|| format!("{machine} misses job {job}"), self.with(again));
                    }
                    None => {}
                },
                At::Tell { held } => {
                    let tells = |world: &mut World| {
                        world.heat[machine].push(held);
                        world.agents[machine].told = flaw != Flaw::ForgetsThatItHasTold;
                        world.agents[machine].at = At::Over;
                    };
                    all.add(|| format!("{machine} tells Heat {held}"), self.with(tells));
                }
                At::Over => {}
            }
        }
        for (job, _) in self.runs[machine].iter().filter(|(_, run)| **run == Run::UnderWay) {
            for run in [Run::Held, Run::Failed] {
                let ends = |world: &mut World| _ = world.runs[machine].insert(*job, run);
                all.add(|| format!("job {job} of {machine}: {run:?}"), self.with(ends));
            }
        }
    }

    /// An agent is killed, and starts again; or it is at its deadline.
    fn ended(&self, machine: Machine, all: &mut Steps) {
        if self.faults.ended == 0 || self.agents[machine].at == At::Over && self.agents[machine].told {
            return;
        }
        let starts = |world: &mut World| {
            world.faults.ended -= 1;
            world.agents[machine].starts();
        };
        all.add(|| format!("{machine} is killed, and starts again"), self.with(starts));
        if !matches!(self.agents[machine].at, At::Report { .. } | At::Tell { .. } | At::Over) {
            let is_late = |world: &mut World| {
                world.faults.ended -= 1;
                world.late[machine] = true;
                world.agents[machine].waits = None;
                world.agents[machine].at = At::Report { held: false };
            };
            all.add(|| format!("{machine} is at its deadline"), self.with(is_late));
        }
    }

    /// What must never be.
    fn wrong(&self) -> Option<&'static str> {
        for machine in 0..MACHINES {
            let runs = &self.runs[machine];
            let held = runs.values().filter(|run| **run == Run::Held).count();
            if self.heat[machine].contains(&true) && held == 0 {
                return Some("Heat was told SUCCESS, and no states hold");
            }
            if self.heat[machine].len() > 1 {
                return Some("Heat was told twice");
            }
            if runs.values().filter(|run| **run != Run::Failed).count() > 1 {
                return Some("the states run twice");
            }
        }
        self.service.wrong()
    }

    /// Where nothing more happens, Heat knows of everybody what is so: of who was let in and had time, what became of the states.
    fn stuck(&self) -> Option<&'static str> {
        for machine in 0..MACHINES {
            let [told] = self.heat[machine][..] else { return Some("somebody waits for ever, and Heat is told nothing") };
            let in_time = self.service.audit.contains(&machine) && !self.late[machine];
            if in_time && self.runs[machine].values().next_back() != Some(&if told { Run::Held } else { Run::Failed }) {
                return Some("who was let in and had time did not come to the end");
            }
        }
        None
    }
}

impl Agent {
    /// A new claim of what it is at.
    fn claim(&mut self, machine: Machine, flaw: Flaw) -> Claim {
        let verb = match self.at {
            At::Enroll => Verb::Enroll,
            At::Apply { again } => {
                let job = self.job.unwrap_or_else(|| {
                    self.names += 1;
                    self.names
                });
                if flaw != Flaw::NamesJobLate {
                    self.job = Some(job);
                }
                Verb::Apply { job, again }
            }
            At::Report { held } => Verb::Report { held },
            At::Watch(_) | At::Tell { .. } | At::Over => unreachable!("nobody is asked then"),
        };
        self.nonces += 1;
        let claim = Claim { machine, nonce: self.nonces, verb };
        self.waits = Some(claim);
        claim
    }

    fn hears(&mut self, claim: Claim, answer: Answer, flaw: Flaw) {
        self.waits = None;
        self.at = match (self.at, answer) {
            (At::Enroll, Answer::Accepted | Answer::Already) => At::Apply { again: false },
            (At::Apply { .. }, Answer::Job { jid, .. }) => {
                if let Verb::Apply { job, .. } = claim.verb {
                    self.job = Some(job);
                }
                if flaw == Flaw::BelievesPublished { At::Report { held: true } } else { At::Watch(jid) }
            }
            (At::Report { held }, _) => At::Tell { held },
            (_, Answer::Replayed) => unreachable!("each claim has a nonce of its own"),
            _ => At::Report { held: false },
        };
    }

    fn knows(&mut self, held: bool) {
        self.job = None;
        self.held = held;
        self.at = At::Report { held };
    }

    fn starts(&mut self) {
        self.waits = None;
        self.at = if self.told {
            At::Over
        } else if self.held {
            At::Report { held: true }
        } else {
            At::Enroll
        };
    }
}

// --- looking at all of it

/// What may come next, and, where somebody wants to read it, what happens on the way there.
#[derive(Default)]
struct Steps {
    worlds: Vec<World>,
    told: Option<Vec<String>>,
}

impl Steps {
    fn add(&mut self, what: impl FnOnce() -> String, world: World) {
        if let Some(told) = &mut self.told {
            told.push(what());
        }
        self.worlds.push(world);
    }
}

/// A state, the one before it, and which of that one's steps leads here.
struct Seen {
    world: Rc<World>,
    before: usize,
    step: usize,
}

/// Every state from `first` on, each once: how many there are, or what is wrong in one of them, with the way there.
fn explored(first: World, flaw: Flaw) -> Result<usize, String> {
    let first = Rc::new(first);
    let mut known = HashSet::from([Rc::clone(&first)]);
    let mut seen = vec![Seen { world: first, before: 0, step: 0 }];
    let mut at = 0;
    while at < seen.len() {
        let world = Rc::clone(&seen[at].world);
        let mut steps = Steps::default();
        world.next(flaw, &mut steps);
        if let Some(wrong) = world.wrong().or_else(|| if steps.worlds.is_empty() { world.stuck() } else { None }) {
            return Err(format!("{wrong}:{}", way_to(&seen, at, flaw)));
        }
        for (step, next) in steps.worlds.into_iter().enumerate() {
            let next = Rc::new(next);
            if known.insert(Rc::clone(&next)) {
                seen.push(Seen { world: next, before: at, step });
            }
        }
        at += 1;
    }
    Ok(seen.len())
}

fn way_to(seen: &[Seen], mut at: usize, flaw: Flaw) -> String {
    let mut way = Vec::new();
    while at != 0 {
        let Seen { before, step, .. } = seen[at];
        let mut steps = Steps { told: Some(Vec::new()), ..Steps::default() };
        seen[before].world.next(flaw, &mut steps);
        way.push(steps.told.unwrap_or_default().swap_remove(step));
        at = before;
    }
    way.iter().rev().map(|what| format!("\n  {what}")).collect()
}

#[test]
fn nothing_is_ever_wrong() {
    let whole = std::env::var_os(lab::harness::WHOLE).is_some_and(|asked| !asked.is_empty());
    // The last one has a million states.
    let faults = [(2, 0), (1, 1), (2, 1)];
    for (lost, ended) in &faults[..if whole { 3 } else { 2 }] {
        for scene in SCENES {
            let faults = Faults { lost: *lost, ended: *ended };
            let states = explored(World::new(scene, faults), Flaw::None).unwrap_or_else(|wrong| panic!("{scene:?}, {faults:?}: {wrong}"));
            println!("{states} states: {scene:?}, {faults:?}");
            // Something was tried.
            assert!(states > 10_000, "{states} states");
        }
    }
}

#[test]
fn each_flaw_is_found() {
    for (flaw, wrong) in [
        (Flaw::PlacesFirst, "a key without a line in the audit"),
        (Flaw::ForgetsJobs, "the states run twice"),
        (Flaw::PublishesFirst, "a job was published that is not written down"),
        (Flaw::CountsEachClaim, "who was let in and had time did not come to the end"),
        (Flaw::NamesJobLate, "the states run twice"),
        (Flaw::BelievesPublished, "Heat was told SUCCESS, and no states hold"),
        (Flaw::ForgetsThatItHasTold, "Heat was told twice"),
    ] {
        let found = |scene| explored(World::new(scene, Faults { lost: 1, ended: 1 }), flaw).err();
        let seen = SCENES.into_iter().find_map(found).unwrap_or_else(|| panic!("{flaw:?} is not found"));
        assert!(seen.starts_with(wrong), "{flaw:?} is found as something else: {seen}");
    }
}

// --- walks for the real service

/// What is asked of the service on the walks, each as often as one likes, word for word. The second machine only wants in.
fn documents() -> Vec<Claim> {
    let of = |machine, verbs: &[Verb]| -> Vec<Claim> {
        verbs.iter().zip(1..).map(|(verb, nonce)| Claim { machine, nonce, verb: *verb }).collect()
    };
    let apply = |again| Verb::Apply { job: 1, again };
    [of(0, &[Verb::Enroll, Verb::Enroll, apply(false), apply(true), Verb::Report { held: true }]), of(1, &[Verb::Enroll, apply(false)])]
        .concat()
}

/// A document, how far the service comes with it, what it answers, and the state that it is in then, by their numbers.
type Step = (usize, Fate, Option<Answer>, usize);

/// Every state of the service, and walks that together take each step that there is: what changes nothing is only asked and answered.
fn walks(scene: Scene) -> (Vec<Service>, Vec<Vec<Step>>) {
    let documents = documents();
    let mut states = vec![Service::new(scene)];
    // By state: what is still to be tried there.
    let mut steps: Vec<Vec<Step>> = Vec::new();
    while steps.len() < states.len() {
        let from = steps.len();
        let mut here = Vec::new();
        for (number, claim) in documents.iter().enumerate() {
            let mut whole = states[from].clone();
            whole.ask(*claim, Fate::Whole, Flaw::None);
            for fate in if whole == states[from] { &[Fate::Whole][..] } else { &Fate::ALL } {
                let mut next = states[from].clone();
                let answer = next.ask(*claim, *fate, Flaw::None);
                let to = states.iter().position(|state| *state == next).unwrap_or_else(|| {
                    states.push(next);
                    states.len() - 1
                });
                here.push((number, *fate, answer, to));
            }
        }
        // First what leads nowhere.
        here.sort_by_key(|step| step.3 == from);
        steps.push(here);
    }
    let mut open = steps.clone();
    let mut walks = Vec::new();
    loop {
        let (mut at, mut walk) = (0, Vec::new());
        while let Some(step) = open[at].pop().or_else(|| towards(&steps, &open, at)) {
            at = step.3;
            walk.push(step);
        }
        if walk.is_empty() {
            return (states, walks);
        }
        walks.push(walk);
    }
}

/// The first step of a shortest way to a state where something is to be tried.
fn towards(steps: &[Vec<Step>], open: &[Vec<Step>], from: usize) -> Option<Step> {
    let mut known = HashSet::from([from]);
    let mut waiting: VecDeque<(usize, Option<Step>)> = VecDeque::from([(from, None)]);
    while let Some((at, first)) = waiting.pop_front() {
        if !open[at].is_empty() {
            return first;
        }
        for step in &steps[at] {
            if known.insert(step.3) {
                waiting.push_back((step.3, first.or(Some(*step))));
            }
        }
    }
    None
}

/// Where the walks are kept, for tests that know nothing of this one.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/salt-extension/tests/schedules.json");
/// With this in the environment they are written anew.
const WRITE: &str = "HSB_WRITE";

fn letter(fate: Fate) -> char {
    match fate {
        Fate::Nothing => 'n',
        Fate::Written => 'w',
        Fate::Carried => 'c',
        Fate::Whole => 'a',
    }
}

/// A scene as the real service's tests read it: each state with where each step leads, and walks as the names of their steps.
fn written(scene: Scene) -> Value {
    let (states, walks) = walks(scene);
    let documents = documents();
    let name = |step: &Step| format!("{}{}", step.0, letter(step.1));
    let mut leads: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new(); states.len()];
    for walk in &walks {
        let mut at = 0;
        for step in walk {
            leads[at].insert(name(step), json!([step.2.map(Answer::word), step.3]));
            at = step.3;
        }
    }
    let number = |machine: &Machine, nonce: &Number| documents.iter().position(|one| (one.machine, one.nonce) == (*machine, *nonce));
    let states: Vec<Value> = states
        .iter()
        .zip(leads)
        .map(|(state, leads)| {
            json!({
                "uses_left": state.uses_left, "record": state.record, "placed": state.placed, "accepted": state.accepted,
                "audit": state.audit, "jobs": state.jobs, "published": state.published, "reports": state.reports,
                "remembered": state.remembered.iter().map(|(machine, nonce)| number(machine, nonce)).collect::<Vec<_>>(),
                "leads": leads,
            })
        })
        .collect();
    let walks: Vec<String> = walks.iter().map(|walk| walk.iter().map(name).collect::<Vec<_>>().join(" ")).collect();
    json!({"same_id": scene.same_id, "uses": scene.uses, "states": states, "walks": walks})
}

/// In lines, so that a change can be read.
fn in_lines(scenes: &[Value]) -> String {
    let documents: Vec<Value> = documents()
        .iter()
        .map(|claim| match claim.verb {
            Verb::Enroll => json!({"machine": claim.machine, "verb": "enroll"}),
            Verb::Apply { again, .. } => json!({"machine": claim.machine, "verb": "apply", "again": again}),
            Verb::Report { .. } => json!({"machine": claim.machine, "verb": "report"}),
        })
        .collect();
    let lines = |name: &str, list: &Value| {
        let lines: Vec<String> = list.as_array().unwrap().iter().map(Value::to_string).collect();
        format!("\"{name}\": [\n{}\n]", lines.join(",\n"))
    };
    let scenes: Vec<String> = scenes
        .iter()
        .map(|scene| {
            let (states, walks) = (lines("states", &scene["states"]), lines("walks", &scene["walks"]));
            format!("{{\"same_id\": {}, \"uses\": {},\n{states},\n{walks}}}", scene["same_id"], scene["uses"])
        })
        .collect();
    format!("{{{},\n\"scenes\": [\n{}\n]}}\n", lines("documents", &Value::Array(documents)), scenes.join(",\n"))
}

#[test]
fn the_walks_for_the_real_service_are_kept() {
    let made = in_lines(&SCENES.map(written));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(KEPT, &made).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(
        kept == made,
        "they are others now: {WRITE}=1 cargo test --test model writes {KEPT} anew, and the real service has to take them"
    );
}
