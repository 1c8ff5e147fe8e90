#!/usr/bin/env perl
# Issue and revoke from Perl, with RPC::XML (Debian: librpc-xml-perl, liblwp-protocol-https-perl).
#
# chancery.pl URL FOLDER issue PURPOSE NAME REQUEST_ID
# chancery.pl URL FOLDER revoke SERIAL REASON REQUEST_ID
#
# URL is https://HOST:PORT/RPC2; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
# 2: the call is wrong, 3: it is not known how it ended; run the same command again.
use strict;
use warnings;
use Encode qw(decode);
use Fcntl;
use IO::Handle;
use RPC::XML;
use RPC::XML::Client;

# Without this RPC::XML says that it sends US-ASCII.
$RPC::XML::ENCODING = 'UTF-8';
binmode STDOUT, ':encoding(UTF-8)';
binmode STDERR, ':encoding(UTF-8)';

# With these codes ok is false and nothing was refused: the same call can be made again.
my %trouble = map { $_ => 1 } qw(outcome.unknown keyroom.unreachable keyroom.behind store.behind store.fork);
my %trouble_faults = map { $_ => 1 } (-32603, 4290);    # an internal error; too many calls at once

sub finish {
    my ($code, $text) = @_;
    print STDERR "$text\n";
    exit $code;
}

@ARGV == 6 or finish(2, 'usage: chancery.pl URL FOLDER issue PURPOSE NAME ID | revoke SERIAL REASON ID');
# RPC::XML encodes what it is given as characters; octets would be encoded twice.
my ($url, $folder, $what, $first, $second, $request_id) = map { decode('UTF-8', $_) } @ARGV;

# Left to guess, RPC::XML sends a name or an id of digits as an int, and one like a date as a time.
sub text { RPC::XML::string->new($_[0]) }

sub connect_to {
    my $rpc = RPC::XML::Client->new($url);
    $rpc->useragent->ssl_opts(
        verify_hostname => 1,
        SSL_ca_file     => "$folder/root.pem",
        SSL_cert_file   => "$folder/caller.pem",
        SSL_key_file    => "$folder/caller.key",
    );
    $rpc->useragent->timeout(90);    # the service gives up after 60 seconds
    return $rpc;
}

# Gives ok, msg and detail. params has a request_id, so asking again never does anything twice.
sub ask {
    my ($method, $params) = @_;
    my $why;
    for my $wait (1, 2, 4, 0) {
        my $response = connect_to()->send_request($method, $params);
        if (!ref $response) {        # a plain string says what went wrong on the way
            $why = $response;
        } elsif ($response->is_fault) {
            if (!$trouble_faults{ $response->code }) {
                finish(2, 'fault ' . $response->code . ' ' . $response->string);
            }
            $why = $response->string;
        } else {
            my ($ok, $msg, $detail) = @{ $response->value };
            return ($ok, $msg, $detail) if $ok || !$trouble{ $detail->{code} };
            $why = $msg;
        }
        sleep $wait;
    }
    finish(3, "not known how it ended: $why - run the same command again");
}

my ($ok, $msg, $detail);
if ($what eq 'issue') {
    ($ok, $msg, $detail) = ask('ca.issue', { purpose => text($first), cn => text($second), request_id => text($request_id) });
} elsif ($what eq 'revoke') {
    ($ok, $msg, $detail) = ask('ca.revoke', { serial => text($first), reason => text($second), request_id => text($request_id) });
} else {
    finish(2, 'issue or revoke');
}
finish(1, "refused: $msg $detail->{code}") if !$ok;
sub unwritten { finish(3, "done, and not written: $! - run the same command again") }

STDOUT->autoflush(1);    # so that each print tells whether it was written
print "$msg\n" or unwritten();
exit 1 if exists $detail->{revoked_at};    # a retry, and somebody has revoked the certificate since
if (exists $detail->{pkcs12}) {
    # The same request_id always gets the same octets, so the file can be written again.
    my $file;
    my $written = sysopen($file, "$request_id.p12", O_WRONLY | O_CREAT | O_TRUNC, 0600)
        && binmode($file) && print({$file} $detail->{pkcs12}) && close $file;
    unwritten() if !$written;
    print "password $detail->{password}\n" or unwritten();
}
