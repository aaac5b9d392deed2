#!/usr/bin/php-cgi -dcgi.force_redirect=0
<?php
// cgi-bin/guests.php
header("Content-Type: text/plain; charset=utf-8");
setcookie("first", "1");
setcookie("second", "2");
$size = isset($_FILES["file"]) ? filesize($_FILES["file"]["tmp_name"]) : 0;
$sum = $size ? md5_file($_FILES["file"]["tmp_name"]) : "none";
echo "Hello ", $_POST["name"] ?? "nobody", ", your file has $size bytes, $sum\n";
if ($_COOKIE) { $names = array_keys($_COOKIE); sort($names); echo "You come with ", implode(" and ", $names), "\n"; }
