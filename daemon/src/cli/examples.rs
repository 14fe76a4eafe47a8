//! What `phantom COMMAND --help` ends with: how each command is used, in a line or a few. A test reads each with the command line.

pub(super) const SETUP: &str = "\
Examples:
  sudo phantom setup                          with the package: for all users of this computer
  phantom setup                               without it: for yourself
  phantom setup --peer phantom-peer:AAAA      join a network through that node (`phantom status` there shows it)";

pub(super) const STATUS: &str = "\
Examples:
  phantom status                              for people
  phantom --json status                       for scripts: ready, warnings, published, …";

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

pub(super) const ADDRESS: &str = "\
Examples:
  phantom address new web                     make one; then offer something at it:
  phantom-run --publish 80:web python3 -m http.server 80
  phantom address list                        which are there?
  phantom address show web                    one of them

`phantom identity` takes copies of what is behind them, and removes them.";

pub(super) const IDENTITY: &str = "\
Examples:
  phantom identity list                       which are there? `phantom address new NAME` makes one
  phantom identity export web web.identity    a copy, sealed with a passphrase
  phantom identity import web.identity        here again, or on another computer
  phantom identity rename web shop            another local name; the address stays
  phantom identity remove shop                for good";

pub(super) const PATH: &str = "\
Examples:
  phantom path list                           which paths stand, over which nodes?";

pub(super) const PEER: &str = "\
Examples:
  phantom peer list                           which nodes are known, which are connected?

From somebody who is in the network to somebody who is not yet:
  phantom peer export bundle                  there: that node and some others, signed by it; prints its node id
  phantom peer import bundle --signed-by ID   here, with the node id that she told you on another way

Whoever makes a bundle could name nothing but nodes of his own, and a computer that knows nobody else would believe him: take one from
people whom you trust. It tells nothing of its maker that her node would not tell anybody. It is of use as long as one of its nodes
answers.";

pub(super) const CONNECTION: &str = "\
Examples:
  phantom connection list                     who is connected, and over which nodes?";

pub(super) const NETDB: &str = "\
Examples:
  phantom netdb lookup web                    can others reach my identity yet?
  phantom netdb lookup NAME.phantom           where is somebody reached?";

pub(super) const FORWARD: &str = "\
Examples:
  phantom forward 80=127.0.0.1:8080           what listens on 8080 here, at a fresh address
  phantom forward 22=127.0.0.1:22 --identity box --keep     at an address that lasts, also after restarts
  phantom forward                             what is offered?
  phantom forward --remove 80                 take it back";

pub(super) const SERVE: &str = "\
Examples:
  phantom serve ./public                      at a fresh address, until Ctrl-C
  phantom serve ./public --identity docs      at an address that lasts";

pub(super) const DESKTOP: &str = "\
Examples:
  phantom desktop add firefox-esr             in the menu: \"Firefox ESR over Phantom\"
  phantom desktop list                        which were made?
  phantom desktop remove firefox-esr          take it back";

pub(super) const UNIT: &str = "\
Examples:
  phantom unit add nginx --identity web --publish 80    a server at an address that lasts
  phantom unit add backup.service             a client; nobody reaches it
  phantom unit list                           which run so?
  phantom unit remove nginx                   the normal network again

Without --publish others reach nothing of a service, whatever it listens on.";

pub(super) const STOP: &str = "\
Examples:
  phantom stop                                connections of programs end with it
  sudo systemctl stop phantomd                where it is a service, which would start it again";

pub(super) const TESTNET: &str = "\
Examples:
  phantom testnet up --nodes 12 --dir net     start one
  phantom-run --daemon net/node-01/daemon.sock PROGRAM    a program on its second node
  phantom testnet down --dir net              stop its nodes, also those started anew by hand, and remove it
  phantom testnet run                         one until Ctrl-C";
