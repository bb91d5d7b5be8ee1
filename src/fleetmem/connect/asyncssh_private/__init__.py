"""Every private name of asyncssh that is used: nobody else may."""
