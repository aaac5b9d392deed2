#!/usr/bin/perl
# cgi-bin/guests.pl
use strict;
use CGI;

my $page = CGI->new;
my $name = $page->param("name") // "nobody";
my $file = $page->upload("file");
my $size = 0;
if ($file) { binmode $file; local $/; $size = length(<$file>); }
print $page->header(
    -type => "text/plain", -charset => "utf-8",
    -cookie => [$page->cookie(-name => "first", -value => "1"), $page->cookie(-name => "second", -value => "2")]
);
print "Hello $name, your file has $size bytes\n";
print "You come with ", join(" and ", sort $page->cookie()), "\n" if $page->cookie();
