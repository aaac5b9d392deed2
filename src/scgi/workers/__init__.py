"""Workers: the processes that accept requests and run the application. Imports `apps` and what is below."""
