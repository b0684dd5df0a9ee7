//! The connection's global requests on the target: frames in, one answer to each out.
//!
//! They belong to no channel of SSH's, so they have a tap of their own. Requests are carried out one after the
//! other, because their answers carry nothing that tells which they are for (RFC 4254 section 4).

use std::time::Duration;

use weir_common::frame::{Message, TcpAddress};

use super::{Connection, channel::ChannelError, forwarding::Listening};
use crate::tap::{self, Queue, Receiver, queue};

/// Serves the tap until the client leg closes it.
pub(super) async fn serve(
    connection: &Connection,
    mut receiver: Receiver,
    sender: tap::Sender,
    stall_timeout: Duration,
) -> Result<(), ChannelError> {
    let (answers, reader) = queue(&connection.gate);
    let answering = async {
        // It holds one message a request, and the client leg waits for the answer before it asks again.
        let _ = answers.push(Message::OpenConfirm, 0);
        obey(connection, &mut receiver, answers).await
    };
    let sending = async { Ok(sender.run(reader, stall_timeout).await?) };
    tokio::try_join!(answering, sending)?;
    Ok(())
}

async fn obey(connection: &Connection, receiver: &mut Receiver, answers: Queue) -> Result<(), ChannelError> {
    while let Some(message) = receiver.next().await? {
        let answer = match message {
            Message::TcpipForward(address) => listen(connection, address).await,
            Message::CancelTcpipForward(address) => {
                connection.forwardings.listens_no_more(&Listening::at(&address));
                done(&connection.handle.cancel_tcpip_forward(address.host, address.port).await)
            }
            Message::StreamlocalForward(_) if connection.forwardings.is_full() => Message::Failure,
            Message::StreamlocalForward(path) => {
                let listening = Listening::Path(path.clone());
                connection.forwardings.listens(listening.clone());
                let answer = done(&connection.handle.streamlocal_forward(path).await);
                if matches!(answer, Message::Failure) {
                    connection.forwardings.listens_no_more(&listening);
                }
                answer
            }
            Message::CancelStreamlocalForward(path) => {
                connection.forwardings.listens_no_more(&Listening::Path(path.clone()));
                done(&connection.handle.cancel_streamlocal_forward(path).await)
            }
            Message::Close => break,
            _ => return Err(ChannelError::NotOpened),
        };
        let _ = answers.push(answer, 0);
    }
    Ok(())
}

async fn listen(connection: &Connection, address: TcpAddress) -> Message {
    let TcpAddress { host, port } = address;
    if connection.forwardings.is_full() {
        return Message::Failure;
    }
    // Expected before it is asked for: the target may open a channel right behind its answer.
    let asked = Listening::Port(port);
    connection.forwardings.listens(asked.clone());
    match connection.handle.tcpip_forward(host, port).await {
        Ok(bound) if port == 0 => {
            connection.forwardings.listens(Listening::Port(bound));
            connection.forwardings.listens_no_more(&asked);
            Message::PortBound(bound)
        }
        Ok(_) => Message::Success,
        Err(_) => {
            connection.forwardings.listens_no_more(&asked);
            Message::Failure
        }
    }
}

fn done(result: &Result<(), russh::Error>) -> Message {
    if result.is_ok() { Message::Success } else { Message::Failure }
}
