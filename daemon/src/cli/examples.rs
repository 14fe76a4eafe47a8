//! What `phantom COMMAND --help` ends with: how each command is used, in a line or a few. A test reads each with the command line.

pub(super) const SETUP: &str = "\
Examples:
  sudo phantom setup                          with the package: for all users
  phantom setup                               without it: for yourself
  phantom setup --peer phantom-peer:AAAA      join a network through that node
                                              (`phantom status` there shows it)";

pub(super) const STATUS: &str = "\
Examples:
  phantom status                              for people
  phantom --json status                       for scripts";

pub(super) const DOCTOR: &str = "\
Examples:
  phantom doctor                              what is wrong, and what to do?
  phantom --json doctor                       the same for scripts

Exit status: 0 all is well; 1 something should be looked at; 2 programs cannot be served.";

pub(super) const LOG: &str = "\
Examples:
  phantom log                                 what was said until now
  phantom log --follow                        and what comes, until Ctrl-C";

pub(super) const TOP: &str = "\
Examples:
  phantom top                                 q ends it";

pub(super) const CONSOLE: &str = "\
Examples:
  phantom console --open                      in the browser, until Ctrl-C
  phantom console                             says a link, which works once: for
                                              the browser that you open it with
  phantom console --listen unix:/run/user/1000/console.sock
                                              on a computer far away; at home:
  ssh -L 127.0.0.1:8000:/run/user/1000/console.sock FAR, and the link

The page only looks. It shows what this user may ask the daemon, and hears no program of another user. docs/console.md shows it.";

pub(super) const IDENTITY: &str = "\
Examples:
  phantom identity new web                    make one; offer something at it:
  phantom-run --publish 80:web python3 -m http.server 80
  phantom identity list                       which are there?
  phantom identity show web                   one of them
  phantom identity export web web.identity    a copy, sealed with a passphrase
  phantom identity import web.identity        here again, or on another computer
  phantom identity rename web shop            another name, the same address
  phantom identity remove shop                for good

`phantom address` is the same command.";

pub(super) const PATH: &str = "\
Examples:
  phantom path list                           which paths stand, by which nodes";

pub(super) const PEER: &str = "\
Examples:
  phantom peer list                           which are known, or connected?

From somebody who is in the network to somebody who is not yet:
  phantom peer export bundle                  there: that node and some others,
                                              signed by it; prints its node id
  phantom peer import bundle --signed-by ID   here, with the node id that she
                                              told you on another way

Whoever makes a bundle could name nothing but nodes of his own, and a computer that knows nobody else would believe him: take one \
from people whom you trust. It tells nothing of its maker that her node would not tell anybody. It is of use as long as one of its \
nodes answers.";

pub(super) const CONNECTION: &str = "\
Examples:
  phantom connection list                     who is connected, by which nodes";

pub(super) const NETDB: &str = "\
Examples:
  phantom netdb lookup web                    can others reach my identity yet?
  phantom netdb lookup NAME.phantom           where is somebody reached?";

pub(super) const FORWARD: &str = "\
Examples:
  phantom forward 80=127.0.0.1:8080           what listens here on 8080
  phantom forward 22=127.0.0.1:22 --identity box --keep
                                              one that lasts, after restarts too
  phantom forward list                        what is offered?
  phantom forward remove 80                   take it back";

pub(super) const SERVE: &str = "\
Examples:
  phantom serve ./public                      at a fresh address, until Ctrl-C
  phantom serve ./public --identity docs      at an address that lasts";

pub(super) const DESKTOP: &str = "\
Examples:
  phantom desktop add firefox-esr             Firefox ESR over Phantom
  phantom desktop list                        which were made?
  phantom desktop remove firefox-esr          take it back";

pub(super) const UNIT: &str = "\
Examples:
  phantom unit add nginx --identity web --publish 80
                                              a server at an address that lasts
  phantom unit add backup.service             a client; nobody reaches it
  phantom unit list                           which run so?
  phantom unit remove nginx                   the normal network again

Without --publish others reach nothing of a service, whatever it listens on.";

pub(super) const RESTART: &str = "\
Examples:
  phantom restart                             after an upgrade, or a change of
                                              phantomd.toml
  sudo systemctl reload phantomd              where it is a service

Programs stay, and so do their phantom namespaces, listeners and connections:
these go on over new routing paths some seconds later. Emulated sockets end,
and so does what was forwarded without --keep.";

pub(super) const STOP: &str = "\
Examples:
  phantom stop                                programs' connections end with it
  sudo systemctl stop phantomd                where it is a service, which would
                                              start it again";

pub(super) const TESTNET: &str = "\
Examples:
  phantom testnet up --nodes 12 --dir net     start one
  phantom-run --daemon net/node-01/daemon.sock PROGRAM
                                              a program on its second node
  phantom testnet down --dir net              stop its nodes, also restarted
                                              ones; remove it
  phantom testnet run                         one until Ctrl-C";
