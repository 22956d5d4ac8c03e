"""`lacunad`: starts the parts as processes and watches them. Imports only `shared`."""
