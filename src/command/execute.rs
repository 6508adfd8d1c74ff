//! Runs the commands of a transaction: over a stage until nothing is missing there, then commits, and after a conflict
//! again. What a transaction does to its connection happens after the commit, so that it happens once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::number::database;
use crate::command::request::{About, ClientState, Flow, Handler, Lookup, Queue, Request};
use crate::command::server::ServerInfo;
use crate::entry::{Key, Version};
use crate::keyspace::Keyspace;
use crate::keyspace::clock::Moment;
use crate::keyspace::stage::Stage;
use crate::limits::{MAX_QUEUED_BYTES, MAX_UPDATE_TRIES};
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// What the commands of a transaction run in.
pub struct Context {
    /// The entries.
    pub keyspace: Arc<Keyspace>,
    /// What the server knows of itself.
    pub server: Arc<ServerInfo>,
    /// The connection's state, to be given back.
    pub client: ClientState,
    /// See [`Request::lookup`].
    pub lookup: Lookup,
}

impl Context {
    /// That of a request.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        Self {
            keyspace: Arc::clone(request.keyspace),
            server: Arc::clone(request.server),
            client: request.client.clone(),
            lookup: request.lookup,
        }
    }
}

/// Executes a transaction: the replies, or nothing if a watched key has another version. And the connection's state.
///
/// Dropping the future before it resolves may leave the transaction committed or not.
pub async fn execute(
    mut context: Context,
    queue: Queue,
    watched: Vec<(Key, Option<Version>)>,
) -> (Result<Option<Vec<Reply>>, ErrorReply>, ClientState) {
    let replies = match committed(&context, &queue, &watched).await {
        Ok(Some(replies)) => Ok(Some(finish(&mut context, &queue, replies).await)),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    (replies, context.client)
}

/// The replies of the commands about entries, once what they did is committed.
async fn committed(
    context: &Context,
    queue: &Queue,
    watched: &[(Key, Option<Version>)],
) -> Result<Option<Vec<Option<Reply>>>, ErrorReply> {
    let keyspace = &context.keyspace;
    let mut known: Vec<Key> = watched.iter().map(|(key, _)| key.clone()).collect();
    let mut conflicts = 0;
    while conflicts < MAX_UPDATE_TRIES {
        let _turn = keyspace.turn(&known).await;
        let stage = keyspace.stage(&known).await?;
        if !watched.iter().all(|(key, version)| stage.agrees(key, *version)) {
            return Ok(None);
        }
        let stage = Arc::new(Mutex::new(stage));
        let replies = play(context, queue, &stage).await?;
        let missing = lock(&stage).take_missing();
        if !missing.is_empty() {
            known.extend(missing);
            continue;
        }
        let staged = lock(&stage).staged(watched, keyspace.guard());
        if keyspace.commit(staged).await? {
            return Ok(Some(replies));
        }
        // Also what was read on the way, so that the next try has its turn.
        known = lock(&stage).given();
        conflicts += 1;
    }
    Err(ErrorReply::Contended)
}

/// Runs the commands about entries over the stage. The others have no reply yet.
async fn play(context: &Context, queue: &Queue, stage: &Arc<Mutex<Stage>>) -> Result<Vec<Option<Reply>>, ErrorReply> {
    let mut client = context.client.clone();
    let mut replies = Vec::with_capacity(queue.iter().len());
    for (step, args) in queue.iter() {
        let reply = match step.about {
            About::Database => {
                client.db = database(&args[1]).unwrap_or(client.db);
                None
            }
            About::Other => None,
            // What is missing makes this run one that does not count; a look at all keys would be for nothing.
            About::Listing | About::AllKeys if lock(stage).is_missing_keys() => None,
            About::Entries | About::Listing | About::AllKeys => {
                Some(reply_of(run(context, &mut client, step.handler, args, Some(stage))).await)
            }
        };
        replies.push(reply);
        // A short command can make a long value, again and again.
        if lock(stage).bytes() > MAX_QUEUED_BYTES {
            return Err(ErrorReply::Other("ERR the transaction writes too much"));
        }
    }
    Ok(replies)
}

/// Runs the commands that are not about entries, now that the others have been committed.
async fn finish(context: &mut Context, queue: &Queue, replies: Vec<Option<Reply>>) -> Vec<Reply> {
    let mut client = context.client.clone();
    let mut finished = Vec::with_capacity(replies.len());
    for ((step, args), reply) in queue.iter().zip(replies) {
        finished.push(match reply {
            Some(reply) => reply,
            None => reply_of(run(context, &mut client, step.handler, args, None)).await,
        });
    }
    context.client = client;
    finished
}

fn run(
    context: &Context,
    client: &mut ClientState,
    handler: Handler,
    args: Args<'_>,
    stage: Option<&Arc<Mutex<Stage>>>,
) -> Flow {
    let Context { keyspace, server, .. } = context;
    let Moment { unix, tick } = keyspace.moment();
    let now = stage.map_or(unix, |stage| lock(stage).now());
    let mut request =
        Request { args, now, tick, behind: false, client, keyspace, server, stage, lookup: context.lookup };
    handler(&mut request).unwrap_or_else(|error| Flow::Done(Reply::Error(error)))
}

async fn reply_of(flow: Flow) -> Reply {
    match flow {
        Flow::Done(reply) | Flow::Close(reply) => reply,
        Flow::Wait(reply) => reply.await,
        Flow::Alone(_) => Reply::Error(ErrorReply::Internal),
    }
}

/// A stage is consistent between its calls, so a panic of a command over it does no harm.
fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}
