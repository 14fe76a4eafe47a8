# Perl: a forking server with IO::Socket::IP, and HTTP::Tiny and IO::Socket::INET (IPv4 alone) as clients.
use strict;
use warnings;
use HTTP::Tiny;
use IO::Socket::INET;
use IO::Socket::IP;

my ($role, $path, $name) = @ARGV;
open my $source, '<:raw', $path or die $!;
my $expected = do { local $/; <$source> };
$SIG{CHLD} = 'IGNORE';

if ($role eq 'server') {
    my $listener = IO::Socket::IP->new(LocalHost => '::', LocalPort => 80, Listen => 16, ReuseAddr => 1) or die $@;
    $| = 1;
    print "listening\n";
    while (1) {
        my $client = $listener->accept or next;
        unless (fork) {
            while (my $line = <$client>) { last if $line eq "\r\n" }
            print $client "HTTP/1.0 200 OK\r\nContent-Length: ", length $expected, "\r\n\r\n", $expected;
            close $client;
            exit 0;
        }
        close $client;
    }
}
my $got = HTTP::Tiny->new(timeout => 80)->get("http://$name/file");
die "$got->{status} $got->{content}" unless $got->{success};
die 'another file' unless $got->{content} eq $expected;
my $four = IO::Socket::INET->new(PeerAddr => $name, PeerPort => 80, Timeout => 80) or die $@;
die $four->peerhost unless $four->peerhost =~ /^198\.1[89]\./;
print $four "GET /file HTTP/1.0\r\n\r\n";
my $answer = do { local $/; <$four> };
die 'another file over IPv4' unless substr($answer, index($answer, "\r\n\r\n") + 4) eq $expected;
print "all well\n";
