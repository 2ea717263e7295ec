"""The image server: nginx on loopback, with nothing between the page cache and the socket."""

import os
import shutil
import signal
import subprocess
import time

CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  sendfile on; tcp_nopush on; sendfile_max_chunk 1m;
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  types {{ }}
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


class Server:
    """Serves the files of a folder, from `with` to its end."""

    def __init__(self, folder, root, port):
        self._folder, self._root, self._port = folder, root, port
        self._process = None

    def url(self, name):
        return f"http://127.0.0.1:{self._port}/{name}"

    def __enter__(self):
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        configuration = self._folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=self._folder, root=self._root, port=self._port))
        # Its workers must reach the images, wherever they lie.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(["nginx", "-p", str(self._folder), "-c", str(configuration), *user])
        for _ in range(100):
            if (self._folder / "pid").exists():
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        raise SystemExit(f"nginx did not start; see {self._folder}/error.log (is port {self._port} taken?)")

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
